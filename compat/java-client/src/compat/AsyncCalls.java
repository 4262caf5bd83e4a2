package compat;

import static compat.Checks.equal;
import static compat.Checks.that;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.text;
import static compat.Suite.withRoot;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.AsyncCallback;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/** Each call in its asynchronous form, and the order of replies. */
final class AsyncCalls {
    private AsyncCalls() {}

    static void add(Checks checks) {
        checks.check("async create, with name, with Stat, with TTL", withRoot(AsyncCalls::create));
        checks.check("async setData, getData, exists, delete", withRoot(AsyncCalls::data));
        checks.check("async getChildren in both forms", withRoot(AsyncCalls::children));
        checks.check("async getACL and setACL", withRoot(AsyncCalls::acl));
        checks.check("async sync, getConfig, getEphemerals, getAllChildrenNumber", withRoot(AsyncCalls::others));
        checks.check("async addWatch and removeWatches", withRoot(AsyncCalls::watches));
        checks.check("async multi, whole or not at all", withRoot(AsyncCalls::multi));
        checks.check("async errors carry their codes", withRoot(AsyncCalls::errors));
        checks.check("two thousand pipelined writes and reads are answered in order", withRoot(AsyncCalls::order));
    }

    private static <T> T await(CompletableFuture<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    private static void create(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<String> plain = new CompletableFuture<>();
        zookeeper.create(root + "/a-", bytes("1"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL,
                (code, path, context, name) -> plain.complete(code + " " + path + " " + context + " " + name), "context");
        equal("0 " + root + "/a- context " + root + "/a-0000000000", await(plain));

        CompletableFuture<Stat> withStat = new CompletableFuture<>();
        zookeeper.create(root + "/b", bytes("22"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL,
                (code, path, context, name, stat) -> withStat.complete(stat), null);
        equal(zookeeper.getSessionId(), await(withStat).getEphemeralOwner());

        CompletableFuture<Stat> withTtl = new CompletableFuture<>();
        zookeeper.create(root + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL,
                (code, path, context, name, stat) -> withTtl.complete(stat), null, 600_000);
        equal(zookeeper.exists(root + "/c", false), await(withTtl));
    }

    private static void data(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<Stat> written = new CompletableFuture<>();
        CompletableFuture<String> read = new CompletableFuture<>();
        CompletableFuture<Stat> exists = new CompletableFuture<>();
        CompletableFuture<Integer> deleted = new CompletableFuture<>();
        zookeeper.setData(root, bytes("new"), 0, (code, path, context, stat) -> written.complete(stat), null);
        zookeeper.getData(root, false, (code, path, context, data, stat) -> read.complete(text(data) + stat.getVersion()), null);
        zookeeper.exists(root, false, (code, path, context, stat) -> exists.complete(stat), null);
        equal(1, await(written).getVersion());
        equal("new1", await(read));
        equal(await(written), await(exists));
        put(zookeeper, root + "/gone", "");
        zookeeper.delete(root + "/gone", 0, (code, path, context) -> deleted.complete(code), null);
        equal(0, await(deleted));
    }

    private static void children(ZooKeeper zookeeper, String root) throws Exception {
        put(zookeeper, root + "/a", "");
        CompletableFuture<List<String>> first = new CompletableFuture<>();
        CompletableFuture<Integer> second = new CompletableFuture<>();
        zookeeper.getChildren(root, false, (AsyncCallback.ChildrenCallback) (code, path, context, names) -> first.complete(names), null);
        zookeeper.getChildren(root, false,
                (AsyncCallback.Children2Callback) (code, path, context, names, stat) -> second.complete(stat.getCversion()), null);
        equal(List.of("a"), await(first));
        equal(1, await(second));
    }

    private static void acl(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<Stat> set = new CompletableFuture<>();
        CompletableFuture<Object> got = new CompletableFuture<>();
        zookeeper.setACL(root, Ids.OPEN_ACL_UNSAFE, 0, (code, path, context, stat) -> set.complete(stat), null);
        zookeeper.getACL(root, new Stat(), (code, path, context, acl, stat) -> got.complete(acl), null);
        equal(1, await(set).getAversion());
        equal(Ids.OPEN_ACL_UNSAFE, await(got));
    }

    private static void others(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<Integer> synced = new CompletableFuture<>();
        CompletableFuture<Integer> config = new CompletableFuture<>();
        CompletableFuture<List<String>> ephemerals = new CompletableFuture<>();
        CompletableFuture<Integer> number = new CompletableFuture<>();
        zookeeper.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zookeeper.sync(root, (code, path, context) -> synced.complete(code), null);
        zookeeper.getConfig(false, (code, path, context, data, stat) -> config.complete(code), null);
        zookeeper.getEphemerals((code, context, paths) -> ephemerals.complete(paths), null);
        zookeeper.getAllChildrenNumber(root, (code, path, context, count) -> number.complete(count), null);
        equal(0, await(synced));
        equal(0, await(config));
        equal(List.of(root + "/e"), await(ephemerals));
        equal(1, await(number));
        CompletableFuture<List<String>> below = new CompletableFuture<>();
        zookeeper.getEphemerals(root + "/x", (code, context, paths) -> below.complete(paths), null);
        equal(List.of(), await(below));
    }

    private static void watches(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        CompletableFuture<Integer> added = new CompletableFuture<>();
        CompletableFuture<Integer> removed = new CompletableFuture<>();
        zookeeper.addWatch(root, events, AddWatchMode.PERSISTENT, (code, path, context) -> added.complete(code), null);
        equal(0, await(added));
        zookeeper.setData(root, bytes("x"), -1);
        events.expect(Watcher.Event.EventType.NodeDataChanged, root);
        zookeeper.removeWatches(root, events, Watcher.WatcherType.Any, false, (code, path, context) -> removed.complete(code), null);
        equal(0, await(removed));
        events.expect(Watcher.Event.EventType.PersistentWatchRemoved, root);
    }

    private static void multi(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<Integer> good = new CompletableFuture<>();
        CompletableFuture<Integer> bad = new CompletableFuture<>();
        zookeeper.multi(List.of(Op.check(root, 0), Op.setData(root, bytes("m"), 0)),
                (code, path, context, results) -> good.complete(code * 10 + results.size()), null);
        zookeeper.multi(List.of(Op.setData(root, bytes("n"), 1), Op.check(root, 9)),
                (code, path, context, results) -> bad.complete(code), null);
        equal(2, await(good));
        equal(Code.BADVERSION.intValue(), await(bad));
        equal("m", text(zookeeper.getData(root, false, null)));
    }

    private static void errors(ZooKeeper zookeeper, String root) throws Exception {
        CompletableFuture<Integer> exists = new CompletableFuture<>();
        CompletableFuture<Integer> created = new CompletableFuture<>();
        CompletableFuture<Integer> deleted = new CompletableFuture<>();
        zookeeper.exists(root + "/none", false, (code, path, context, stat) -> exists.complete(code), null);
        zookeeper.create(root, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (code, path, context, name) -> created.complete(code), null);
        zookeeper.delete(root, 5, (code, path, context) -> deleted.complete(code), null);
        equal(Code.NONODE.intValue(), await(exists));
        equal(Code.NODEEXISTS.intValue(), await(created));
        equal(Code.BADVERSION.intValue(), await(deleted));
    }

    private static void order(ZooKeeper zookeeper, String root) throws Exception {
        int rounds = 1000;
        List<String> answers = new ArrayList<>();
        CountDownLatch left = new CountDownLatch(2 * rounds);
        for (int round = 0; round < rounds; round++) {
            zookeeper.setData(root, bytes(Integer.toString(round)), -1, (code, path, context, stat) -> {
                answers.add("w" + stat.getVersion());
                left.countDown();
            }, null);
            zookeeper.getData(root, false, (code, path, context, data, stat) -> {
                answers.add("r" + text(data));
                left.countDown();
            }, null);
        }
        that(left.await(60, TimeUnit.SECONDS), "only " + answers.size() + " of " + 2 * rounds + " answers came");
        List<String> expected = new ArrayList<>();
        for (int round = 0; round < rounds; round++) {
            expected.addAll(Arrays.asList("w" + (round + 1), "r" + round));
        }
        equal(expected, answers);
    }
}
