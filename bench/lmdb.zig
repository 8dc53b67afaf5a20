//! LMDB's own C library (Debian's liblmdb0), opened while running, so that nothing has to be there
//! to build. The database lies in memory and is never synced: the fastest it can be.

const std = @import("std");

const Environment = opaque {};
const Transaction = opaque {};
const Value = extern struct { len: usize, data: ?*const anyopaque };

const not_found: c_int = -30798;
const write_map: c_uint = 0x80000;
const no_sync: c_uint = 0x10000;
const no_meta_sync: c_uint = 0x40000;
const no_readahead: c_uint = 0x800000;
const read_only: c_uint = 0x20000;

pub const Error = error{ Missing, Failed };

/// The functions of the library that are used, as `lmdb.h` declares them.
const Functions = struct {
    mdb_env_create: *const fn (*?*Environment) callconv(.c) c_int,
    mdb_env_set_mapsize: *const fn (*Environment, usize) callconv(.c) c_int,
    mdb_env_open: *const fn (*Environment, [*:0]const u8, c_uint, c_uint) callconv(.c) c_int,
    mdb_env_close: *const fn (*Environment) callconv(.c) void,
    mdb_txn_begin: *const fn (
        *Environment,
        ?*Transaction,
        c_uint,
        *?*Transaction,
    ) callconv(.c) c_int,
    mdb_txn_commit: *const fn (*Transaction) callconv(.c) c_int,
    mdb_txn_abort: *const fn (*Transaction) callconv(.c) void,
    mdb_txn_reset: *const fn (*Transaction) callconv(.c) void,
    mdb_txn_renew: *const fn (*Transaction) callconv(.c) c_int,
    mdb_dbi_open: *const fn (*Transaction, ?[*:0]const u8, c_uint, *c_uint) callconv(.c) c_int,
    mdb_get: *const fn (*Transaction, c_uint, *Value, *Value) callconv(.c) c_int,
    mdb_put: *const fn (*Transaction, c_uint, *Value, *Value, c_uint) callconv(.c) c_int,
    mdb_del: *const fn (*Transaction, c_uint, *Value, ?*Value) callconv(.c) c_int,
};

pub const Database = struct {
    library: std.DynLib,
    call: Functions,
    environment: *Environment,
    database: c_uint,
    reader: *Transaction,
    /// The transaction that writes go to; null: each has one of its own.
    writer: ?*Transaction = null,

    /// Makes a database in `directory`, which must be there, and is not asked for again. `Missing`:
    /// the library is not.
    pub fn init(directory: [:0]const u8, bytes_max: usize) Error!Database {
        var library = std.DynLib.open("liblmdb.so.0") catch return error.Missing;
        var call: Functions = undefined;
        inline for (@typeInfo(Functions).@"struct".fields) |field| {
            @field(call, field.name) = library.lookup(field.type, field.name) orelse
                return error.Missing;
        }
        var environment: ?*Environment = null;
        try check(call.mdb_env_create(&environment));
        try check(call.mdb_env_set_mapsize(environment.?, bytes_max));
        const flags = write_map | no_sync | no_meta_sync | no_readahead;
        try check(call.mdb_env_open(environment.?, directory.ptr, flags, 0o600));
        var transaction: ?*Transaction = null;
        var database: c_uint = 0;
        try check(call.mdb_txn_begin(environment.?, null, 0, &transaction));
        try check(call.mdb_dbi_open(transaction.?, null, 0, &database));
        try check(call.mdb_txn_commit(transaction.?));
        var reader: ?*Transaction = null;
        try check(call.mdb_txn_begin(environment.?, null, read_only, &reader));
        call.mdb_txn_reset(reader.?);
        return .{
            .library = library,
            .call = call,
            .environment = environment.?,
            .database = database,
            .reader = reader.?,
        };
    }

    pub fn deinit(self: *Database) void {
        self.call.mdb_txn_abort(self.reader);
        self.call.mdb_env_close(self.environment);
        self.library.close();
    }

    /// Puts the writes that follow into one transaction.
    pub fn begin(self: *Database) Error!void {
        try check(self.call.mdb_txn_begin(self.environment, null, 0, &self.writer));
    }

    pub fn commit(self: *Database) Error!void {
        try check(self.call.mdb_txn_commit(self.writer.?));
        self.writer = null;
    }

    /// Begins a read that sees what was committed last, as every get of the others does.
    pub inline fn get(self: *Database, key: []const u8, target: []u8) i32 {
        if (self.call.mdb_txn_renew(self.reader) != 0) return -2;
        defer self.call.mdb_txn_reset(self.reader);
        var name: Value = .{ .len = key.len, .data = key.ptr };
        var value: Value = undefined;
        if (self.call.mdb_get(self.reader, self.database, &name, &value) != 0) return -1;
        const bytes: [*]const u8 = @ptrCast(value.data.?);
        if (value.len > target.len) return -2;
        @memcpy(target[0..value.len], bytes[0..value.len]);
        return @intCast(value.len);
    }

    pub inline fn put(self: *Database, key: []const u8, value: []const u8) i32 {
        var name: Value = .{ .len = key.len, .data = key.ptr };
        var data: Value = .{ .len = value.len, .data = value.ptr };
        const transaction = self.open() orelse return -2;
        if (self.call.mdb_put(transaction, self.database, &name, &data, 0) != 0) return -2;
        return self.finish(transaction, 1);
    }

    pub inline fn delete(self: *Database, key: []const u8) i32 {
        var name: Value = .{ .len = key.len, .data = key.ptr };
        const transaction = self.open() orelse return -2;
        const result = self.call.mdb_del(transaction, self.database, &name, null);
        if (result != 0 and result != not_found) return -2;
        return self.finish(transaction, @intFromBool(result == 0));
    }

    inline fn open(self: *Database) ?*Transaction {
        if (self.writer) |transaction| return transaction;
        var transaction: ?*Transaction = null;
        if (self.call.mdb_txn_begin(self.environment, null, 0, &transaction) != 0) return null;
        return transaction;
    }

    inline fn finish(self: *Database, transaction: *Transaction, result: i32) i32 {
        if (self.writer != null) return result;
        return if (self.call.mdb_txn_commit(transaction) == 0) result else -2;
    }
};

fn check(result: c_int) Error!void {
    if (result != 0) return error.Failed;
}
