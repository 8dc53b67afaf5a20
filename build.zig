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
    const small_mappings = b.option(
        bool,
        "small-mappings",
        "Run the Zig tests with mappings that end where their segments do",
    ) orelse false;
    const small_extents = b.option(
        bool,
        "small-extents",
        "Run the Zig tests with extents that park for all entries with a chunk of their own",
    ) orelse false;
    addLibrary(b, optimize);
    addBoundary(b);
    addPeer(b);
    addBench(b);
    addProofs(b);
    const tests = b.addTest(.{
        .root_module = moduleOf(b, "zig/root.zig", b.graph.host, .ReleaseSafe),
        .filters = filters,
    });
    const run = b.addRunArtifact(tests);
    // The same program, for it looks at its environment (`zig/segment/mappings.zig`).
    if (small_mappings) run.setEnvironmentVariable("SHMAP_SMALL_MAPPINGS", "1");
    if (small_extents) run.setEnvironmentVariable("SHMAP_SMALL_EXTENTS", "1");
    b.step("test", "Run the Zig tests").dependOn(&run.step);
}

fn moduleOf(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
    });
}

/// Where the library is shipped to: the name of its folder under `zig-out/all`, and of its file.
const Target = struct { name: []const u8, triple: []const u8, file: []const u8 };

const targets = [_]Target{
    .{ .name = "linux-x64", .triple = "x86_64-linux-none", .file = "libshmap.so" },
    .{ .name = "linux-arm64", .triple = "aarch64-linux-none", .file = "libshmap.so" },
    .{ .name = "macos-x64", .triple = "x86_64-macos", .file = "libshmap.dylib" },
    .{ .name = "macos-arm64", .triple = "aarch64-macos", .file = "libshmap.dylib" },
    .{ .name = "windows-x64", .triple = "x86_64-windows-gnu", .file = "shmap.dll" },
    .{ .name = "windows-arm64", .triple = "aarch64-windows-gnu", .file = "shmap.dll" },
};

fn addLibrary(b: *std.Build, optimize: std.builtin.OptimizeMode) void {
    const host = b.graph.host.result;
    const own = b.fmt("{s}-{s}", .{ @tagName(host.cpu.arch), @tagName(host.os.tag) });
    const all = b.step("all", "Build the library for every platform");
    for (targets) |target| {
        const library = linked(b, target, .ReleaseFast);
        const folder: std.Build.InstallDir = .{ .custom = b.fmt("all/{s}", .{target.name}) };
        const installed = &b.addInstallFileWithDir(library, folder, target.file).step;
        all.dependOn(installed);
        b.step(b.fmt("all-{s}", .{target.name}), "Build this one of them").dependOn(installed);
        if (!std.mem.startsWith(u8, target.triple, own)) continue;
        const wanted = linked(b, target, optimize);
        b.getInstallStep().dependOn(&b.addInstallFileWithDir(wanted, .lib, target.file).step);
    }
}

/// On Linux the library has no libc of its own and calls the mutex of whichever libc its host has,
/// so one binary serves glibc and musl. It must never be unloaded (docs/design.md, Assumptions),
/// and `std.Build` has no word for `-z nodelete`: hence the compiler's own command. Elsewhere it
/// stays by its own doing (`os.prepareThreads`), and links only what belongs to the system.
fn linked(
    b: *std.Build,
    target: Target,
    optimize: std.builtin.OptimizeMode,
) std.Build.LazyPath {
    const link = b.addSystemCommand(&.{ b.graph.zig_exe, "build-lib", "-dynamic", "-fstrip" });
    link.addArgs(&.{ "-O", @tagName(optimize), "-target", target.triple });
    link.addArgs(&.{ "-mcpu", "baseline", "--name", "shmap" });
    if (std.mem.endsWith(u8, target.file, ".so")) {
        // One register more; the ABIs of the other systems ask for the frame pointer.
        link.addArgs(&.{ "-fomit-frame-pointer", "-fallow-shlib-undefined", "-z", "nodelete" });
    } else if (std.mem.endsWith(u8, target.file, ".dylib")) {
        link.addArgs(&.{ "-lc", "-install_name", "@rpath/libshmap.dylib" });
    } else {
        link.addArgs(&.{ "-fno-emit-implib", "-lkernel32", "-lntdll", "-ladvapi32" });
    }
    const library = link.addPrefixedOutputFileArg("-femit-bin=", target.file);
    link.addPrefixedFileArg("-Mroot=", b.path("zig/root.zig"));
    // The command names its root alone: a change of any other source must compile it anew, too.
    for (sources(b)) |path| link.addFileInput(b.path(path));
    return library;
}

/// Every source below `zig`.
fn sources(b: *std.Build) []const []const u8 {
    return allSources(b) catch |failure| std.debug.panic("reading zig: {t}", .{failure});
}

fn allSources(b: *std.Build) ![]const []const u8 {
    const io = b.graph.io;
    var directory = try b.build_root.handle.openDir(io, "zig", .{ .iterate = true });
    defer directory.close(io);
    var found: std.ArrayList([]const u8) = .empty;
    var walker = try directory.walk(b.allocator);
    while (try walker.next(io)) |entry| {
        if (entry.kind == .file) try found.append(b.allocator, b.pathJoin(&.{ "zig", entry.path }));
    }
    std.mem.sort([]const u8, found.items, {}, isBefore);
    return found.items;
}

fn isBefore(_: void, one: []const u8, other: []const u8) bool {
    return std.mem.lessThan(u8, one, other);
}

/// The TypeScript side of the symbol table.
fn addBoundary(b: *std.Build) void {
    const emit = b.addExecutable(.{
        .name = "emit_abi",
        .root_module = moduleOf(b, "zig/abi/emit.zig", b.graph.host, .Debug),
    });
    emit.root_module.addImport("shmap", moduleOf(b, "zig/root.zig", b.graph.host, .Debug));
    const emitted = b.addRunArtifact(emit).captureStdOut(.{});
    const update = b.addUpdateSourceFiles();
    update.addCopyFileToSource(emitted, "src/ffi/abi.ts");
    b.step("abi", "Write src/ffi/abi.ts").dependOn(&update.step);
}

/// A process linked statically with the other libc: what shows that two libcs can meet. With LLVM
/// it would take a minute to build.
fn addPeer(b: *std.Build) void {
    const musl = b.resolveTargetQuery(.{
        .cpu_arch = b.graph.host.result.cpu.arch,
        .os_tag = .linux,
        .abi = .musl,
    });
    const peer = b.addExecutable(.{
        .name = "shmap-peer",
        .root_module = moduleOf(b, "tests/native/peer.zig", musl, .Debug),
        .use_llvm = true, // the linker of its own has no weak symbols in a static program
    });
    peer.root_module.addImport("shmap", moduleOf(b, "zig/root.zig", musl, .Debug));
    const install = b.addInstallArtifact(peer, .{});
    b.step("peer", "Build a native process for the tests").dependOn(&install.step);
}

/// The native benchmarks (bench/run.mjs), for any processor of this kind, as the library is.
const benches = [_][]const u8{ "engine", "growth", "processes", "locks", "instructions" };

fn addBench(b: *std.Build) void {
    const target = b.resolveTargetQuery(.{ .cpu_model = .baseline });
    const all = b.step("bench-programs", "Build the native benchmarks");
    all.dependOn(b.getInstallStep());
    all.dependOn(addFloor(b));
    for (benches) |name| {
        const root = moduleOf(b, b.fmt("bench/{s}.zig", .{name}), target, .ReleaseFast);
        root.addImport("shmap", moduleOf(b, "zig/root.zig", target, .ReleaseFast));
        const program = b.addExecutable(.{
            .name = b.fmt("shmap-bench-{s}", .{name}),
            .root_module = root,
        });
        all.dependOn(&b.addInstallArtifact(program, .{}).step);
        if (!std.mem.eql(u8, name, "engine")) continue;
        const run = b.addRunArtifact(program);
        run.step.dependOn(b.getInstallStep());
        run.addArg(b.getInstallPath(.lib, "libshmap.so"));
        b.step("bench", "Measure the engine beside a plain table and LMDB").dependOn(&run.step);
    }
}

/// The library without an engine that is measured beside the real one, linked the same way.
fn addFloor(b: *std.Build) *std.Build.Step {
    const link = b.addSystemCommand(&.{ b.graph.zig_exe, "build-lib", "-dynamic", "-fstrip" });
    const arch = @tagName(b.graph.host.result.cpu.arch);
    link.addArgs(&.{ "-O", "ReleaseFast", "-target", b.fmt("{s}-linux-none", .{arch}) });
    link.addArgs(&.{ "-mcpu", "baseline", "--name", "shmap-floor" });
    const library = link.addPrefixedOutputFileArg("-femit-bin=", "libshmap-floor.so");
    link.addArgs(&.{ "--dep", "table" });
    link.addPrefixedFileArg("-Mroot=", b.path("bench/floor.zig"));
    link.addPrefixedFileArg("-Mtable=", b.path("src/ffi/abi.ts"));
    return &b.addInstallFileWithDir(library, .lib, "libshmap-floor.so").step;
}

/// The programs of the native parts of the proof (tools/proof_programs.mjs).
const proofs = [_][]const u8{ "plain", "recorded" };

fn addProofs(b: *std.Build) void {
    const all = b.step("proof", "Build the native parts of the proof");
    for (proofs) |name| {
        const root = moduleOf(b, b.fmt("tests/proof/{s}.zig", .{name}), b.graph.host, .ReleaseSafe);
        root.addImport("shmap", moduleOf(b, "zig/root.zig", b.graph.host, .ReleaseSafe));
        const program = b.addExecutable(.{
            .name = b.fmt("shmap-proof-{s}", .{name}),
            .root_module = root,
        });
        all.dependOn(&b.addInstallArtifact(program, .{}).step);
    }
}
