/* ZooKeeper's C client (multi-threaded, Debian's) against the server named by ZK=host:port.
 *
 * Each check prints the line that compat/run counts: ok, FAIL or skip. The first failed expectation ends its check. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

#define LIMIT_SECONDS 60

static char root[64];
static int failed;

/* Leaves the check with a reason that names the place. */
#define EXPECT(condition)                                                            \
    do {                                                                             \
        if (!(condition)) {                                                          \
            static char reason[300];                                                 \
            snprintf(reason, sizeof reason, "line %d: %s", __LINE__, #condition);    \
            return reason;                                                           \
        }                                                                            \
    } while (0)

/* What watchers and completions leave for the check's thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int event_count, event_type, answer_count, answer_code, order[3000];
static char event_path[256], answer_text[256];

static void reset(void) {
    pthread_mutex_lock(&lock);
    event_count = event_type = answer_count = answer_code = 0;
    event_path[0] = answer_text[0] = 0;
    pthread_mutex_unlock(&lock);
}

/* Waits until the counter has reached a value. */
static int wait_for(int *counter, int value) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_SECONDS;
    pthread_mutex_lock(&lock);
    int late = 0;
    while (*counter < value && !late) {
        late = pthread_cond_timedwait(&changed, &lock, &until) != 0;
    }
    int reached = *counter >= value;
    pthread_mutex_unlock(&lock);
    return reached;
}

static void on_event(zhandle_t *zk, int type, int state, const char *path, void *context) {
    (void)zk, (void)state, (void)context;
    if (type == ZOO_SESSION_EVENT) {
        return;
    }
    pthread_mutex_lock(&lock);
    event_count++;
    event_type = type;
    snprintf(event_path, sizeof event_path, "%s", path);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void answered(int code, const char *text) {
    pthread_mutex_lock(&lock);
    answer_code = code;
    snprintf(answer_text, sizeof answer_text, "%s", text);
    answer_count++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_void(int code, const void *data) {
    (void)data;
    answered(code, "");
}
static void on_string(int code, const char *value, const void *data) {
    (void)data;
    answered(code, value ? value : "");
}
static void on_data(int code, const char *value, int length, const struct Stat *stat, const void *data) {
    (void)stat, (void)data;
    char text[256] = "";
    if (length > 0 && length < (int)sizeof text) {
        memcpy(text, value, (size_t)length);
        text[length] = 0;
    }
    answered(code, text);
}
static void on_stat(int code, const struct Stat *stat, const void *data) {
    int version = stat ? stat->version : -1;
    pthread_mutex_lock(&lock);
    if (answer_count < 3000) {
        order[answer_count] = data ? *(const int *)data : version;
    }
    pthread_mutex_unlock(&lock);
    answered(code, "");
}
static void on_strings(int code, const struct String_vector *names, const struct Stat *stat, const void *data) {
    (void)stat, (void)data;
    answered(code, names && names->count ? names->data[0] : "");
}

static zhandle_t *open_session(int timeout_ms, const clientid_t *id) {
    zhandle_t *zk = zookeeper_init(getenv("ZK"), on_event, timeout_ms, id, NULL, 0);
    for (int turn = 0; zk && turn < LIMIT_SECONDS * 100 && zoo_state(zk) != ZOO_CONNECTED_STATE; turn++) {
        usleep(10000);
    }
    return zk;
}

static const char *below(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 256, "%s%s", root, name);
    return path;
}

static int put(zhandle_t *zk, const char *name, int flags) {
    return zoo_create(zk, below(name), "x", 1, &ZOO_OPEN_ACL_UNSAFE, flags, NULL, 0);
}

static const char *create_read_delete(zhandle_t *zk) {
    char path[256], data[64];
    int length = sizeof data;
    struct Stat stat;
    EXPECT(zoo_create(zk, below("/a"), "hello", 5, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path) == ZOK);
    EXPECT(strcmp(path, below("/a")) == 0);
    EXPECT(zoo_get(zk, path, 0, data, &length, &stat) == ZOK && length == 5 && memcmp(data, "hello", 5) == 0);
    EXPECT(stat.version == 0 && stat.dataLength == 5 && stat.ephemeralOwner == 0 && stat.czxid == stat.mzxid);
    EXPECT(zoo_set2(zk, path, "new", 3, 0, &stat) == ZOK && stat.version == 1);
    EXPECT(zoo_exists(zk, path, 0, &stat) == ZOK && stat.version == 1);
    EXPECT(zoo_create2(zk, below("/b"), NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path, &stat) == ZOK);
    length = sizeof data;
    EXPECT(zoo_get(zk, path, 0, data, &length, &stat) == ZOK && length == -1);
    struct String_vector names;
    EXPECT(zoo_get_children2(zk, root, 0, &names, &stat) == ZOK && names.count == 2 && stat.numChildren == 2);
    deallocate_String_vector(&names);
    EXPECT(zoo_delete(zk, below("/a"), 1) == ZOK && zoo_delete(zk, below("/b"), -1) == ZOK);
    return NULL;
}

static const char *errors(zhandle_t *zk) {
    EXPECT(put(zk, "/none/child", 0) == ZNONODE);
    EXPECT(put(zk, "/e", 0) == ZOK && put(zk, "/e", 0) == ZNODEEXISTS);
    EXPECT(zoo_set(zk, below("/e"), "y", 1, 9) == ZBADVERSION);
    EXPECT(zoo_delete(zk, root, -1) == ZNOTEMPTY);
    EXPECT(put(zk, "/eph", ZOO_EPHEMERAL) == ZOK && put(zk, "/eph/child", 0) == ZNOCHILDRENFOREPHEMERALS);
    EXPECT(zoo_exists(zk, below("/none"), 0, NULL) == ZNONODE);
    EXPECT(zoo_create(zk, "relative", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZBADARGUMENTS);
    return NULL;
}

static const char *modes(zhandle_t *zk) {
    char path[256];
    struct Stat stat;
    EXPECT(zoo_create(zk, below("/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, path, sizeof path) == ZOK);
    EXPECT(strcmp(path, below("/s-0000000000")) == 0);
    EXPECT(zoo_create(zk, below("/s-"), "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE | ZOO_EPHEMERAL, path, sizeof path) == ZOK);
    EXPECT(strcmp(path, below("/s-0000000001")) == 0);
    EXPECT(zoo_exists(zk, path, 0, &stat) == ZOK && stat.ephemeralOwner == zoo_client_id(zk)->client_id);
    EXPECT(put(zk, "/container", ZOO_CONTAINER) == ZOK && put(zk, "/container/c", 0) == ZOK);
    EXPECT(zoo_create_ttl(zk, below("/ttl"), "x", 1, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT_WITH_TTL, 600000, NULL, 0) == ZOK);
    reset();
    EXPECT(zoo_wexists(zk, below("/container"), on_event, NULL, &stat) == ZOK);
    EXPECT(zoo_delete(zk, below("/container/c"), -1) == ZOK);
    EXPECT(wait_for(&event_count, 1) && event_type == ZOO_DELETED_EVENT);
    return NULL;
}

static const char *multi(zhandle_t *zk) {
    zoo_op_t operations[4];
    zoo_op_result_t results[4];
    char path[256];
    struct Stat stat;
    zoo_check_op_init(&operations[0], root, 0);
    zoo_create_op_init(&operations[1], below("/m"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    zoo_set_op_init(&operations[2], below("/m"), "2", 1, 0, &stat);
    zoo_delete_op_init(&operations[3], below("/m"), 1);
    EXPECT(zoo_multi(zk, 4, operations, results) == ZOK);
    EXPECT(strcmp(path, below("/m")) == 0 && stat.version == 1 && zoo_exists(zk, path, 0, NULL) == ZNONODE);
    zoo_check_op_init(&operations[3], root, 9);
    EXPECT(zoo_multi(zk, 4, operations, results) == ZBADVERSION);
    EXPECT(results[0].err == ZOK && results[3].err == ZBADVERSION);
    EXPECT(zoo_exists(zk, path, 0, NULL) == ZNONODE);
    zoo_delete_op_init(&operations[0], below("/m"), -1);
    EXPECT(zoo_multi(zk, 4, operations, results) == ZNONODE);
    EXPECT(results[0].err == ZNONODE && results[1].err == ZRUNTIMEINCONSISTENCY && results[3].err == ZRUNTIMEINCONSISTENCY);
    return NULL;
}

static const char *watches(zhandle_t *zk) {
    struct Stat stat;
    struct String_vector names;
    char data[16];
    int length = sizeof data;
    reset();
    EXPECT(zoo_wexists(zk, below("/w"), on_event, NULL, &stat) == ZNONODE);
    EXPECT(put(zk, "/w", 0) == ZOK && wait_for(&event_count, 1) && event_type == ZOO_CREATED_EVENT);
    EXPECT(strcmp(event_path, below("/w")) == 0);
    EXPECT(zoo_wget(zk, below("/w"), on_event, NULL, data, &length, &stat) == ZOK);
    EXPECT(zoo_set(zk, below("/w"), "y", 1, -1) == ZOK && wait_for(&event_count, 2) && event_type == ZOO_CHANGED_EVENT);
    EXPECT(zoo_wget_children(zk, below("/w"), on_event, NULL, &names) == ZOK);
    deallocate_String_vector(&names);
    EXPECT(put(zk, "/w/c", 0) == ZOK && wait_for(&event_count, 3) && event_type == ZOO_CHILD_EVENT);
    EXPECT(zoo_set(zk, below("/w"), "z", 1, -1) == ZOK && zoo_exists(zk, below("/w"), 0, &stat) == ZOK && event_count == 3);
    EXPECT(zoo_wexists(zk, below("/w/c"), on_event, NULL, &stat) == ZOK);
    EXPECT(zoo_remove_watches(zk, below("/w/c"), ZWATCHTYPE_DATA, on_event, NULL, 0) == ZOK);
    EXPECT(zoo_remove_watches(zk, below("/w/c"), ZWATCHTYPE_DATA, on_event, NULL, 0) == ZNOWATCHER);
    return NULL;
}

static const char *asynchronous(zhandle_t *zk) {
    reset();
    EXPECT(zoo_acreate(zk, below("/async"), "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, NULL) == ZOK);
    EXPECT(wait_for(&answer_count, 1) && answer_code == ZOK && strcmp(answer_text, below("/async")) == 0);
    EXPECT(zoo_aset(zk, below("/async"), "two", 3, 0, on_stat, NULL) == ZOK);
    EXPECT(zoo_aget(zk, below("/async"), 0, on_data, NULL) == ZOK);
    EXPECT(wait_for(&answer_count, 3) && strcmp(answer_text, "two") == 0);
    EXPECT(zoo_aget_children2(zk, root, 0, on_strings, NULL) == ZOK && wait_for(&answer_count, 4));
    EXPECT(answer_code == ZOK && strcmp(answer_text, "async") == 0);
    EXPECT(zoo_async(zk, root, on_string, NULL) == ZOK && wait_for(&answer_count, 5) && strcmp(answer_text, root) == 0);
    EXPECT(zoo_adelete(zk, below("/async"), 9, on_void, NULL) == ZOK && wait_for(&answer_count, 6) && answer_code == ZBADVERSION);
    EXPECT(zoo_adelete(zk, below("/async"), 1, on_void, NULL) == ZOK && wait_for(&answer_count, 7) && answer_code == ZOK);
    return NULL;
}

static const char *pipelined(zhandle_t *zk) {
    static int numbers[2000];
    reset();
    for (int index = 0; index < 2000; index++) {
        numbers[index] = index;
        EXPECT(zoo_aset(zk, root, "x", 1, -1, on_stat, &numbers[index]) == ZOK);
    }
    EXPECT(wait_for(&answer_count, 2000));
    for (int index = 0; index < 2000; index++) {
        EXPECT(order[index] == index);
    }
    struct Stat stat;
    EXPECT(zoo_exists(zk, root, 0, &stat) == ZOK && stat.version == 2000);
    return NULL;
}

/* What a process of its own does: it opens a session with an ephemeral znode, tells standard output whose, and ends without closing it. */
static int leave(const char *path) {
    zhandle_t *first = open_session(30000, NULL);
    if (!first || zoo_create(first, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) != ZOK) {
        return 1;
    }
    _exit(write(STDOUT_FILENO, zoo_client_id(first), sizeof(clientid_t)) != sizeof(clientid_t));
}

static const char *sessions(zhandle_t *zk) {
    EXPECT(zoo_recv_timeout(zk) == 30000);
    const char *mine = below("/mine");
    int channel[2];
    clientid_t id;
    EXPECT(pipe(channel) == 0);
    if (fork() == 0) {
        /* It must not use the client before it is another program: a thread that is not there any more may have held a lock. */
        dup2(channel[1], STDOUT_FILENO);
        execl("/proc/self/exe", "suite", "leave", mine, (char *)NULL);
        _exit(1);
    }
    close(channel[1]);
    EXPECT(read(channel[0], &id, sizeof id) == sizeof id);
    zhandle_t *second = open_session(30000, &id);
    EXPECT(second && zoo_state(second) == ZOO_CONNECTED_STATE && zoo_client_id(second)->client_id == id.client_id);
    struct Stat stat;
    EXPECT(zoo_exists(zk, below("/mine"), 0, &stat) == ZOK && stat.ephemeralOwner == id.client_id);
    reset();
    EXPECT(zoo_wexists(zk, below("/mine"), on_event, NULL, &stat) == ZOK);
    zookeeper_close(second);
    EXPECT(wait_for(&event_count, 1) && event_type == ZOO_DELETED_EVENT);
    return NULL;
}

static const char *rights(zhandle_t *zk) {
    zhandle_t *owner = open_session(30000, NULL);
    char data[16];
    int length = sizeof data;
    struct Stat stat;
    struct ACL_vector acl;
    EXPECT(owner);
    reset();
    EXPECT(zoo_add_auth(owner, "digest", "c:secret", 8, on_void, NULL) == ZOK && wait_for(&answer_count, 1) && answer_code == ZOK);
    EXPECT(zoo_create(owner, below("/private"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0) == ZOK);
    EXPECT(zoo_get(zk, below("/private"), 0, data, &length, &stat) == ZNOAUTH);
    length = sizeof data;
    EXPECT(zoo_get(owner, below("/private"), 0, data, &length, &stat) == ZOK && length == 1);
    EXPECT(zoo_get_acl(owner, below("/private"), &acl, &stat) == ZOK && acl.count == 1);
    EXPECT(strcmp(acl.data[0].id.scheme, "digest") == 0 && strncmp(acl.data[0].id.id, "c:", 2) == 0);
    deallocate_ACL_vector(&acl);
    EXPECT(zoo_set_acl(owner, below("/private"), 9, &ZOO_OPEN_ACL_UNSAFE) == ZBADVERSION);
    EXPECT(zoo_set_acl(owner, below("/private"), 0, &ZOO_OPEN_ACL_UNSAFE) == ZOK);
    length = sizeof data;
    EXPECT(zoo_get(zk, below("/private"), 0, data, &length, &stat) == ZOK);
    zookeeper_close(owner);
    return NULL;
}

static const char *configuration(zhandle_t *zk) {
    char data[4096];
    int length = sizeof data;
    struct Stat stat;
    EXPECT(zoo_getconfig(zk, 0, data, &length, &stat) == ZOK);
    return NULL;
}

static void delete_below(zhandle_t *zk, const char *path) {
    struct String_vector names;
    if (zoo_get_children(zk, path, 0, &names) == ZOK) {
        for (int index = 0; index < names.count; index++) {
            char child[512];
            snprintf(child, sizeof child, "%s/%s", path, names.data[index]);
            delete_below(zk, child);
        }
        deallocate_String_vector(&names);
    }
    zoo_delete(zk, path, -1);
}

static void check(const char *name, const char *(*body)(zhandle_t *)) {
    zhandle_t *zk = open_session(30000, NULL);
    const char *problem = "no connection";
    if (zk && zoo_state(zk) == ZOO_CONNECTED_STATE) {
        zoo_create(zk, root, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
        problem = body(zk);
        delete_below(zk, root);
    }
    if (zk) {
        zookeeper_close(zk);
    }
    if (problem) {
        failed = 1;
        printf("FAIL %s: %s\n", name, problem);
    } else {
        printf("ok %s\n", name);
    }
    fflush(stdout);
}

int main(int count, char **arguments) {
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    if (count == 3 && strcmp(arguments[1], "leave") == 0) {
        return leave(arguments[2]);
    }
    snprintf(root, sizeof root, "/c-%ld-%d", (long)time(NULL), (int)getpid());
    check("create, read, set, list, delete", create_read_delete);
    check("errors", errors);
    check("sequential, ephemeral, container and TTL znodes", modes);
    check("multi, whole or not at all", multi);
    check("watches of each kind, and their removal", watches);
    check("asynchronous calls", asynchronous);
    check("two thousand pipelined writes are answered in order", pipelined);
    check("a session is resumed with its id and password", sessions);
    check("digest authentication and ACLs", rights);
    check("getconfig", configuration);
    return failed;
}
