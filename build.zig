//! Builds the shared library, its tests, and the TypeScript side of its symbol table.

const std = @import("std");

pub fn build(b: *std.Build) void {
    const optimize = b.option(
        std.builtin.OptimizeMode,
        "optimize",
        "How to build the library (default ReleaseFast)",
    ) orelse .ReleaseFast;
    const filters = b.option(
        []const []const u8,
        "filter",
        "Run only tests whose names contain this",
    ) orelse &.{};

    // The library has no libc of its own and calls the mutex of whichever libc its host has, so
    // one binary serves glibc and musl. It must never be unloaded (docs/design.md, Assumptions),
    // and `std.Build` has no word for `-z nodelete`: hence the compiler's own command.
    const link = b.addSystemCommand(&.{ b.graph.zig_exe, "build-lib", "-dynamic", "-fstrip" });
    link.addArgs(&.{ "-fallow-shlib-undefined", "-z", "nodelete", "-O", @tagName(optimize) });
    const arch = @tagName(b.graph.host.result.cpu.arch);
    link.addArgs(&.{ "-target", b.fmt("{s}-linux-none", .{arch}) });
    link.addArgs(&.{ "-mcpu", "baseline", "--name", "shmap" });
    const library = link.addPrefixedOutputFileArg("-femit-bin=", "libshmap.so");
    link.addPrefixedFileArg("-Mroot=", b.path("zig/abi.zig"));
    link.has_side_effects = true; // the compiler knows what it has compiled before

    const emit = b.addExecutable(.{
        .name = "emit_abi",
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/emit_abi.zig"),
            .target = b.graph.host,
            .optimize = .Debug,
            .link_libc = true,
        }),
    });
    const emitted = b.addRunArtifact(emit).captureStdOut(.{});

    const tests = b.addTest(.{
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/tests.zig"),
            .target = b.graph.host,
            .optimize = .ReleaseSafe,
            .link_libc = true,
        }),
        .filters = filters,
    });

    b.getInstallStep().dependOn(&b.addInstallFileWithDir(library, .lib, "libshmap.so").step);

    const abi = b.step("abi", "Write src/_abi.ts");
    const update = b.addUpdateSourceFiles();
    update.addCopyFileToSource(emitted, "src/_abi.ts");
    abi.dependOn(&update.step);

    // Statically linked with the other libc: what the tests need to show that two libcs can meet.
    const peer = b.addExecutable(.{
        .name = "shmap-peer",
        .root_module = b.createModule(.{
            .root_source_file = b.path("zig/peer.zig"),
            .target = b.resolveTargetQuery(.{
                .cpu_arch = b.graph.host.result.cpu.arch,
                .os_tag = .linux,
                .abi = .musl,
            }),
            .optimize = .ReleaseSafe,
            .link_libc = true,
        }),
    });
    b.step("peer", "Build a native process for the tests").dependOn(
        &b.addInstallArtifact(peer, .{}).step,
    );

    const engine = b.createModule(.{
        .root_source_file = b.path("zig/abi.zig"),
        .target = b.graph.host,
        .optimize = .ReleaseFast,
        .link_libc = true,
    });
    const bench_locks = b.addExecutable(.{
        .name = "bench-locks",
        .root_module = b.createModule(.{
            .root_source_file = b.path("bench/locks.zig"),
            .target = b.graph.host,
            .optimize = .ReleaseFast,
            .imports = &.{.{ .name = "shmap", .module = engine }},
        }),
    });
    b.step("bench-locks", "Measure what the user's lock costs").dependOn(
        &b.addRunArtifact(bench_locks).step,
    );

    b.step("test", "Run the Zig tests").dependOn(&b.addRunArtifact(tests).step);
}
