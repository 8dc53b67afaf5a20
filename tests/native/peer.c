/**
 * A process in C for the tests, which knows nothing of shmap but the symbols it asks for. It loads
 * the library whose path is its argument, as the runtimes do, beside the C library that it was
 * itself linked with; takes the commands of zig/peer.zig, and answers as that does.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of src/_abi.ts and src/_values.ts. */
enum { mode_attach = 4, mode_exclusive = 8, lock_kernel = 64 | 128 };
enum { text_kind = 3, invalid_argument = -17 };

static const char codec[] = "msgpackr";

/* What is used of the boundary, zig/abi.zig. */
static int32_t (*shm_segment_open)(const char *directory, uint32_t directory_len, const char *name,
                                   uint32_t name_len, const char *codec, uint32_t codec_len,
                                   uint32_t flags, uint32_t permissions, double max_bytes,
                                   double timeout_ms, char *fault);
static int32_t (*shm_segment_unlink_name)(const char *directory, uint32_t directory_len,
                                          const char *name, uint32_t name_len, uint32_t flags,
                                          double timeout_ms, char *fault);
static int32_t (*shm_segment_close)(uint32_t handle);
static int32_t (*shm_map_put)(uint32_t handle, const char *key, uint32_t key_len,
                              const char *value, uint32_t value_len, uint32_t kind);
static int32_t (*shm_map_get)(uint32_t handle, const char *key, uint32_t key_len, char *target,
                              uint32_t target_len);
static double (*shm_map_size)(uint32_t handle);
static int32_t (*shm_map_verify)(uint32_t handle, uint32_t repair, char *target,
                                 uint32_t target_len);
static int32_t (*shm_lock_acquire)(uint32_t handle, uint32_t shared, double timeout_ms);
static int32_t (*shm_lock_release)(uint32_t handle, uint32_t keep);

static uint32_t handle;
static char fault[128];
static char room[4096];

/** The function of this name, which the library must have. */
static void *symbol(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (found) return found;
  fprintf(stderr, "%s\n", dlerror());
  exit(1);
}

static void load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  shm_segment_open = symbol(library, "shm_segment_open");
  shm_segment_unlink_name = symbol(library, "shm_segment_unlink_name");
  shm_segment_close = symbol(library, "shm_segment_close");
  shm_map_put = symbol(library, "shm_map_put");
  shm_map_get = symbol(library, "shm_map_get");
  shm_map_size = symbol(library, "shm_map_size");
  shm_map_verify = symbol(library, "shm_map_verify");
  shm_lock_acquire = symbol(library, "shm_lock_acquire");
  shm_lock_release = symbol(library, "shm_lock_release");
}

static uint32_t flags_of(const char *how) {
  if (!strcmp(how, "kernel")) return lock_kernel;
  if (!strcmp(how, "attach")) return mode_attach;
  if (!strcmp(how, "exclusive")) return lock_kernel | mode_exclusive;
  return 0;
}

static int32_t open_map(const char *name, const char *how, double timeout_ms) {
  int32_t result = shm_segment_open(NULL, 0, name, strlen(name), codec, strlen(codec),
                                    flags_of(how), 0600, 0, timeout_ms, fault);
  if (result > 0) handle = result;
  return result > 0 ? 1 : result;
}

static int32_t put(const char *key, const char *value) {
  return shm_map_put(handle, key, strlen(key), value, strlen(value), text_kind);
}

static int32_t get(const char *key) {
  return shm_map_get(handle, key, strlen(key), room, sizeof room);
}

/** Counts under the lock, as fast as it can. */
static int32_t add(const char *key, int times) {
  for (int i = 0; i < times; i++) {
    int32_t locked = shm_lock_acquire(handle, 0, 20000);
    if (locked < 0) return locked;
    int32_t len = get(key);
    long before = 0;
    if (len >= 0) {
      room[len] = 0; /* where the kind of the value was */
      before = atol(room);
    }
    char next[32];
    snprintf(next, sizeof next, "%ld", before + 1);
    int32_t stored = put(key, next);
    if (stored < 0) return stored;
    shm_lock_release(handle, 0);
  }
  return 0;
}

/** How many faults the search for damage found, and parts that it could not look at. */
static int32_t verify(void) {
  int32_t len = shm_map_verify(handle, 0, room, sizeof room);
  if (len < 0) return len;
  double problems, busy;
  memcpy(&problems, room, sizeof problems);
  memcpy(&busy, room + 40, sizeof busy);
  return problems + busy;
}

static int32_t answer(const char *command, const char *first, const char *second, double third) {
  if (!strcmp(command, "open")) return open_map(first, second, third);
  if (!strcmp(command, "put")) return put(first, second);
  if (!strcmp(command, "get")) return get(first);
  if (!strcmp(command, "size")) return shm_map_size(handle);
  if (!strcmp(command, "lock")) return shm_lock_acquire(handle, 0, atof(first));
  if (!strcmp(command, "unlock")) return shm_lock_release(handle, 0);
  if (!strcmp(command, "add")) return add(first, atoi(second));
  if (!strcmp(command, "verify")) return verify();
  if (!strcmp(command, "close")) return shm_segment_close(handle);
  if (!strcmp(command, "unlink"))
    return shm_segment_unlink_name(NULL, 0, first, strlen(first), 0, 5000, fault);
  return invalid_argument;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  load(arguments[1]);
  static char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    char *words[4] = {"", "", "", "0"};
    int found = 0;
    for (char *word = strtok(line, " \n"); word && found < 4; word = strtok(NULL, " \n"))
      words[found++] = word;
    int32_t result = answer(words[0], words[1], words[2], atof(words[3]));
    int is_text = !strcmp(words[0], "get") && result >= 0;
    if (is_text) printf("%d %.*s\n", result, result, room);
    else printf("%d\n", result);
    fflush(stdout);
  }
  return 0;
}
