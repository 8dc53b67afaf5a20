//! The functions of kernel32, ntdll and advapi32 that this library calls, and their structures and
//! numbers. Nothing else of Windows is used: no C runtime, no shell.

pub const Handle = ?*anyopaque;
pub const Bool = i32;

pub const invalid: usize = @bitCast(@as(isize, -1));
/// What stands for the calling process.
pub const self: Handle = @ptrFromInt(invalid);

/// The last errors that mean something to us, by their names in Microsoft's headers.
pub const Code = enum(u32) {
    success = 0,
    invalid_function = 1,
    file_not_found = 2,
    path_not_found = 3,
    access_denied = 5,
    invalid_handle = 6,
    not_enough_memory = 8,
    out_of_memory = 14,
    invalid_drive = 15,
    no_more_files = 18,
    write_protect = 19,
    sharing_violation = 32,
    lock_violation = 33,
    handle_eof = 38,
    handle_disk_full = 39,
    not_supported = 50,
    bad_network_path = 53,
    bad_network_name = 67,
    file_exists = 80,
    invalid_parameter = 87,
    disk_full = 112,
    call_not_implemented = 120,
    invalid_name = 123,
    already_exists = 183,
    name_too_long = 206,
    file_too_large = 223,
    directory = 267,
    partial_copy = 299,
    delete_pending = 303,
    invalid_address = 487,
    io_pending = 997,
    no_access = 998,
    user_mapped_file = 1224,
    disk_quota_exceeded = 1295,
    privilege_not_held = 1314,
    commitment_limit = 1455,
    _,
};

/// What a file that was deleted, and is still open somewhere, is refused with.
pub const status_delete_pending: u32 = 0xc0000056;

pub const generic_read = 0x80000000;
pub const generic_write = 0x40000000;
pub const delete_access = 0x10000;
pub const read_control = 0x20000;
pub const read_attributes = 0x80;
pub const share_all = 7;

pub const create_new = 1;
pub const open_existing = 3;
pub const open_always = 4;

pub const backup_semantics = 0x02000000;
pub const open_reparse_point = 0x00200000;

pub const attribute_directory = 0x10;
pub const attribute_reparse_point = 0x400;

pub const page_noaccess = 1;
pub const page_readonly = 2;
pub const page_readwrite = 4;
pub const page_writecopy = 8;
pub const map_copy = 1;
pub const map_write = 2;
pub const map_read = 4;
pub const mem_commit = 0x1000;
pub const mem_reserve = 0x2000;
pub const mem_replace_placeholder = 0x4000;
pub const mem_release = 0x8000;
pub const mem_free = 0x10000;
pub const mem_mapped = 0x40000;
pub const mem_reserve_placeholder = 0x40000;
pub const mem_preserve_placeholder = 2;

pub const lock_fail_immediately = 1;
pub const lock_exclusive = 2;

pub const FileTime = extern struct { low: u32, high: u32 };

pub const FileInformation = extern struct {
    attributes: u32,
    created: FileTime,
    accessed: FileTime,
    written: FileTime,
    volume: u32,
    size_high: u32,
    size_low: u32,
    links: u32,
    index_high: u32,
    index_low: u32,
};

pub const class = struct {
    pub const standard = 1;
    pub const rename = 3;
    pub const disposition = 4;
    pub const end_of_file = 6;
    pub const id = 18;
    pub const disposition_ex = 21;
    pub const rename_ex = 22;
};

pub const StandardInformation = extern struct {
    allocated: i64,
    size: i64,
    links: u32,
    delete_pending: u8,
    directory: u8,
};

pub const IdInformation = extern struct { volume: u64, low: u64 align(8), high: u64 };

pub const RenameInformation = extern struct {
    flags: u32,
    root: Handle,
    name_bytes: u32,
    name: [4096]u16,
};

pub const rename_replace = 1;
pub const rename_posix = 2;
pub const disposition_delete = 1;
pub const disposition_posix = 2;
pub const disposition_ignore_readonly = 16;

pub const Overlapped = extern struct {
    internal: usize = 0,
    internal_high: usize = 0,
    offset_low: u32,
    offset_high: u32,
    event: Handle = null,

    pub fn at(offset: u64) Overlapped {
        return .{ .offset_low = @truncate(offset), .offset_high = @truncate(offset >> 32) };
    }
};

pub const MemoryInformation = extern struct {
    base: usize,
    allocation_base: usize,
    allocation_protect: u32,
    partition: u16,
    size: usize,
    state: u32,
    protect: u32,
    type: u32,
};

pub const FindData = extern struct {
    attributes: u32,
    created: FileTime,
    accessed: FileTime,
    written: FileTime,
    size_high: u32,
    size_low: u32,
    reserved: [2]u32,
    name: [260]u16,
    alternate: [14]u16,
};

pub const FullSize = extern struct {
    total: i64,
    available_to_caller: i64,
    available: i64,
    sectors: u32,
    sector_bytes: u32,
};

pub const Device = extern struct { type: u32, characteristics: u32 };

pub const volume_device = 4;
pub const volume_full_size = 7;
pub const device_network = 0x14;
pub const remote_device = 0x10;

pub extern "kernel32" fn CreateFileW(
    path: [*:0]const u16,
    access: u32,
    share: u32,
    security: Handle,
    disposition: u32,
    flags: u32,
    template: Handle,
) callconv(.winapi) Handle;
pub extern "kernel32" fn ReOpenFile(Handle, u32, u32, u32) callconv(.winapi) Handle;
pub extern "kernel32" fn CloseHandle(Handle) callconv(.winapi) Bool;
pub extern "kernel32" fn GetLastError() callconv(.winapi) Code;
pub extern "kernel32" fn GetFileType(Handle) callconv(.winapi) u32;
pub extern "kernel32" fn GetFileInformationByHandle(
    Handle,
    *FileInformation,
) callconv(.winapi) Bool;
pub extern "kernel32" fn GetFileInformationByHandleEx(
    Handle,
    u32,
    *anyopaque,
    u32,
) callconv(.winapi) Bool;
pub extern "kernel32" fn SetFileInformationByHandle(
    Handle,
    u32,
    *const anyopaque,
    u32,
) callconv(.winapi) Bool;
pub extern "kernel32" fn GetFinalPathNameByHandleW(
    Handle,
    [*]u16,
    u32,
    u32,
) callconv(.winapi) u32;
pub extern "kernel32" fn GetFileSizeEx(Handle, *u64) callconv(.winapi) Bool;
pub extern "kernel32" fn ReadFile(
    Handle,
    [*]u8,
    u32,
    *u32,
    *Overlapped,
) callconv(.winapi) Bool;
pub extern "kernel32" fn WriteFile(
    Handle,
    [*]const u8,
    u32,
    *u32,
    *Overlapped,
) callconv(.winapi) Bool;
pub extern "kernel32" fn FlushFileBuffers(Handle) callconv(.winapi) Bool;
pub extern "kernel32" fn MoveFileExW(
    [*:0]const u16,
    [*:0]const u16,
    u32,
) callconv(.winapi) Bool;
pub extern "kernel32" fn CreateDirectoryW([*:0]const u16, Handle) callconv(.winapi) Bool;
pub extern "kernel32" fn GetEnvironmentVariableW(
    [*:0]const u16,
    [*]u16,
    u32,
) callconv(.winapi) u32;
pub extern "kernel32" fn GetTempPathW(u32, [*]u16) callconv(.winapi) u32;
pub extern "kernel32" fn FindFirstFileW([*:0]const u16, *FindData) callconv(.winapi) Handle;
pub extern "kernel32" fn FindNextFileW(Handle, *FindData) callconv(.winapi) Bool;
pub extern "kernel32" fn FindClose(Handle) callconv(.winapi) Bool;
pub extern "kernel32" fn LockFileEx(
    Handle,
    u32,
    u32,
    u32,
    u32,
    *Overlapped,
) callconv(.winapi) Bool;
pub extern "kernel32" fn UnlockFileEx(
    Handle,
    u32,
    u32,
    u32,
    *Overlapped,
) callconv(.winapi) Bool;

pub extern "kernel32" fn CreateFileMappingW(
    Handle,
    Handle,
    u32,
    u32,
    u32,
    ?[*:0]const u16,
) callconv(.winapi) Handle;
pub extern "kernel32" fn MapViewOfFileEx(
    Handle,
    u32,
    u32,
    u32,
    usize,
    ?*anyopaque,
) callconv(.winapi) ?*anyopaque;
pub extern "kernel32" fn UnmapViewOfFile(*const anyopaque) callconv(.winapi) Bool;
pub extern "kernel32" fn FlushViewOfFile(*const anyopaque, usize) callconv(.winapi) Bool;
pub extern "kernel32" fn VirtualAlloc(
    ?*anyopaque,
    usize,
    u32,
    u32,
) callconv(.winapi) ?*anyopaque;
pub extern "kernel32" fn VirtualFree(*anyopaque, usize, u32) callconv(.winapi) Bool;
pub extern "kernel32" fn VirtualQuery(
    usize,
    *MemoryInformation,
    usize,
) callconv(.winapi) usize;
pub extern "kernel32" fn ReadProcessMemory(
    Handle,
    [*]const u8,
    [*]u8,
    usize,
    *usize,
) callconv(.winapi) Bool;
pub extern "kernel32" fn WriteProcessMemory(
    Handle,
    [*]u8,
    [*]const u8,
    usize,
    *usize,
) callconv(.winapi) Bool;

pub extern "kernel32" fn GetModuleHandleW(?[*:0]const u16) callconv(.winapi) Handle;
pub extern "kernel32" fn GetModuleHandleExW(
    u32,
    *const anyopaque,
    *Handle,
) callconv(.winapi) Bool;
pub extern "kernel32" fn GetProcAddress(Handle, [*:0]const u8) callconv(.winapi) Handle;
pub extern "kernel32" fn FlsAlloc(
    *const fn (?*anyopaque) callconv(.c) void,
) callconv(.winapi) u32;
pub extern "kernel32" fn FlsGetValue(u32) callconv(.winapi) ?*const anyopaque;
pub extern "kernel32" fn FlsSetValue(u32, ?*const anyopaque) callconv(.winapi) Bool;
pub extern "kernel32" fn GetCurrentProcessId() callconv(.winapi) u32;
pub extern "kernel32" fn GetCurrentThreadId() callconv(.winapi) u32;
pub extern "kernel32" fn SwitchToThread() callconv(.winapi) Bool;
pub extern "kernel32" fn CreateWaitableTimerExW(
    Handle,
    ?[*:0]const u16,
    u32,
    u32,
) callconv(.winapi) Handle;
pub extern "kernel32" fn SetWaitableTimer(
    Handle,
    *const i64,
    i32,
    Handle,
    Handle,
    Bool,
) callconv(.winapi) Bool;
pub extern "kernel32" fn WaitForSingleObject(Handle, u32) callconv(.winapi) u32;
pub extern "kernel32" fn QueryPerformanceCounter(*i64) callconv(.winapi) Bool;
pub extern "kernel32" fn QueryPerformanceFrequency(*i64) callconv(.winapi) Bool;
pub extern "kernel32" fn GetSystemTimePreciseAsFileTime(*FileTime) callconv(.winapi) void;

pub extern "ntdll" fn NtQueryVolumeInformationFile(
    Handle,
    *[2]usize,
    *anyopaque,
    u32,
    u32,
) callconv(.winapi) i32;
pub extern "ntdll" fn NtDelayExecution(u8, *const i64) callconv(.winapi) i32;
pub extern "ntdll" fn RtlGetLastNtStatus() callconv(.winapi) u32;

pub extern "advapi32" fn SystemFunction036([*]u8, u32) callconv(.winapi) u8;
pub extern "advapi32" fn GetKernelObjectSecurity(
    Handle,
    u32,
    [*]u8,
    u32,
    *u32,
) callconv(.winapi) Bool;
pub extern "advapi32" fn OpenProcessToken(Handle, u32, *Handle) callconv(.winapi) Bool;
pub extern "advapi32" fn GetTokenInformation(
    Handle,
    u32,
    [*]u8,
    u32,
    *u32,
) callconv(.winapi) Bool;
