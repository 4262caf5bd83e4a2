package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.fails;
import static compat.Checks.that;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.withRoot;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Watches of every kind while connected; those that outlive a connection are in {@link Sessions}. */
final class Watches {
    private Watches() {}

    static void add(Checks checks) {
        checks.check("data watch fires once, for a change by anyone", withRoot(Watches::dataWatch));
        checks.check("exists watch fires for creation, change and deletion", withRoot(Watches::existsWatch));
        checks.check("child watch fires for children only", withRoot(Watches::childWatch));
        checks.check("deletion fires data and child watches", withRoot(Watches::deletion));
        checks.check("the default watcher gets its events", withRoot(Watches::defaultWatcher));
        checks.check("the event comes before the reply that shows the change", withRoot(Watches::eventBeforeData));
        checks.check("several watchers on one znode each get the event", withRoot(Watches::several));
        checks.check("persistent watch stays and sees data and children", withRoot(Watches::persistent));
        checks.check("recursive watch sees the whole subtree", withRoot(Watches::recursive));
        checks.check("persistent and one-shot watches side by side", withRoot(Watches::sideBySide));
        checks.check("removeWatches: data, children, any", withRoot(Watches::remove));
        checks.check("removeWatches of a watcher that is not there: NoWatcher", withRoot(Watches::removeMissing));
        checks.check("removeAllWatches takes every watcher", withRoot(Watches::removeAll));
        checks.check("removing one of two watchers keeps the other", withRoot(Watches::removeOne));
        checks.check("removing persistent watches by their own kinds", withRoot(Watches::removePersistent));
        checks.check("a thousand events in order", withRoot(Watches::inOrder));
        checks.check("expired and closed sessions' ephemerals fire watches", withRoot(Watches::ephemerals));
    }

    private static void dataWatch(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        zookeeper.getData(root, events, null);
        try (ZooKeeper other = Suite.open()) {
            other.setData(root, bytes("1"), -1);
            events.expect(EventType.NodeDataChanged, root);
            other.setData(root, bytes("2"), -1);
        }
        zookeeper.sync(root);
        zookeeper.exists(root, false);
        events.expectNone();
    }

    private static void existsWatch(ZooKeeper zookeeper, String root) throws Exception {
        String path = root + "/later";
        Events events = new Events();
        equal(null, zookeeper.exists(path, events));
        put(zookeeper, path, "");
        events.expect(EventType.NodeCreated, path);
        zookeeper.exists(path, events);
        zookeeper.setData(path, bytes("x"), -1);
        events.expect(EventType.NodeDataChanged, path);
        zookeeper.exists(path, events);
        zookeeper.delete(path, -1);
        events.expect(EventType.NodeDeleted, path);
        // A read that fails for want of the znode leaves no watch behind.
        fails(KeeperException.NoNodeException.class, () -> zookeeper.getData(path, events, null));
        put(zookeeper, path, "");
        zookeeper.exists(path, false);
        events.expectNone();
    }

    private static void childWatch(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        zookeeper.getChildren(root, events);
        zookeeper.setData(root, bytes("not a child"), -1);
        put(zookeeper, root + "/a", "");
        events.expect(EventType.NodeChildrenChanged, root);
        zookeeper.getChildren(root, events);
        zookeeper.setData(root + "/a", bytes("x"), -1);
        put(zookeeper, root + "/a/b", "");
        zookeeper.exists(root, false);
        events.expectNone();
        zookeeper.delete(root + "/a/b", -1);
        zookeeper.delete(root + "/a", -1);
        events.expect(EventType.NodeChildrenChanged, root);
    }

    private static void deletion(ZooKeeper zookeeper, String root) throws Exception {
        String path = root + "/a";
        put(zookeeper, path, "");
        Events data = new Events();
        Events children = new Events();
        zookeeper.getData(path, data, null);
        zookeeper.getChildren(path, children);
        zookeeper.delete(path, -1);
        data.expect(EventType.NodeDeleted, path);
        children.expect(EventType.NodeDeleted, path);
        zookeeper.exists(root, false);
        data.expectNone();
        children.expectNone();
    }

    private static void defaultWatcher(ZooKeeper ignored, String root) throws Exception {
        Events events = new Events();
        try (ZooKeeper zookeeper = Suite.open(Suite.SERVER, Suite.SESSION_TIMEOUT_MS, events)) {
            zookeeper.exists(root + "/a", true);
            zookeeper.getChildren(root, true);
            put(zookeeper, root + "/a", "");
            events.expect(EventType.NodeCreated, root + "/a");
            events.expect(EventType.NodeChildrenChanged, root);
        }
    }

    private static void eventBeforeData(ZooKeeper zookeeper, String root) throws Exception {
        for (int round = 0; round < 200; round++) {
            List<String> order = Collections.synchronizedList(new ArrayList<>());
            zookeeper.getData(root, event -> order.add("event"), null);
            zookeeper.setData(root, bytes("x"), -1, (code, path, context, stat) -> order.add("reply"), null);
            eventually("both came", () -> order.size() == 2);
            equal(List.of("event", "reply"), order);
        }
    }

    private static void several(ZooKeeper zookeeper, String root) throws Exception {
        Events first = new Events();
        Events second = new Events();
        Events third = new Events();
        zookeeper.getData(root, first, null);
        zookeeper.exists(root, second);
        zookeeper.getData(root, third, null);
        zookeeper.setData(root, bytes("x"), -1);
        for (Events events : List.of(first, second, third)) {
            events.expect(EventType.NodeDataChanged, root);
        }
    }

    private static void persistent(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        zookeeper.addWatch(root, events, AddWatchMode.PERSISTENT);
        put(zookeeper, root + "/a", "");
        events.expect(EventType.NodeChildrenChanged, root);
        zookeeper.setData(root, bytes("1"), -1);
        events.expect(EventType.NodeDataChanged, root);
        zookeeper.setData(root, bytes("2"), -1);
        events.expect(EventType.NodeDataChanged, root);
        zookeeper.setData(root + "/a", bytes("below"), -1);
        zookeeper.delete(root + "/a", -1);
        events.expect(EventType.NodeChildrenChanged, root);
        zookeeper.delete(root, -1);
        events.expect(EventType.NodeDeleted, root);
        put(zookeeper, root, "");
        events.expect(EventType.NodeCreated, root);
    }

    private static void recursive(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        zookeeper.addWatch(root, events, AddWatchMode.PERSISTENT_RECURSIVE);
        put(zookeeper, root + "/a", "");
        put(zookeeper, root + "/a/b", "");
        zookeeper.setData(root + "/a/b", bytes("x"), -1);
        zookeeper.setData(root, bytes("x"), -1);
        zookeeper.delete(root + "/a/b", -1);
        zookeeper.delete(root + "/a", -1);
        events.expect(EventType.NodeCreated, root + "/a");
        events.expect(EventType.NodeCreated, root + "/a/b");
        events.expect(EventType.NodeDataChanged, root + "/a/b");
        events.expect(EventType.NodeDataChanged, root);
        events.expect(EventType.NodeDeleted, root + "/a/b");
        events.expect(EventType.NodeDeleted, root + "/a");
        zookeeper.exists(root, false);
        events.expectNone();
    }

    private static void sideBySide(ZooKeeper zookeeper, String root) throws Exception {
        Events persistent = new Events();
        Events recursive = new Events();
        Events once = new Events();
        zookeeper.addWatch(root, persistent, AddWatchMode.PERSISTENT);
        put(zookeeper, root + "/a", "");
        zookeeper.addWatch(root + "/a", recursive, AddWatchMode.PERSISTENT_RECURSIVE);
        zookeeper.getData(root + "/a", once, null);
        zookeeper.setData(root + "/a", bytes("1"), -1);
        zookeeper.setData(root + "/a", bytes("2"), -1);
        persistent.expect(EventType.NodeChildrenChanged, root);
        once.expect(EventType.NodeDataChanged, root + "/a");
        recursive.expect(EventType.NodeDataChanged, root + "/a");
        recursive.expect(EventType.NodeDataChanged, root + "/a");
        zookeeper.exists(root, false);
        once.expectNone();
        persistent.expectNone();
        recursive.expectNone();
    }

    private static void remove(ZooKeeper zookeeper, String root) throws Exception {
        Events data = new Events();
        zookeeper.getData(root, data, null);
        zookeeper.removeWatches(root, data, WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, root);
        Events children = new Events();
        zookeeper.getChildren(root, children);
        zookeeper.removeWatches(root, children, WatcherType.Children, false);
        children.expect(EventType.ChildWatchRemoved, root);
        Events any = new Events();
        zookeeper.exists(root + "/missing", any);
        zookeeper.removeWatches(root + "/missing", any, WatcherType.Any, false);
        any.expect(EventType.DataWatchRemoved, root + "/missing");
        zookeeper.setData(root, bytes("x"), -1);
        put(zookeeper, root + "/missing", "");
        zookeeper.exists(root, false);
        for (Events events : List.of(data, children, any)) {
            events.expectNone();
        }
    }

    private static void removeMissing(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        fails(KeeperException.NoWatcherException.class, () -> zookeeper.removeWatches(root, events, WatcherType.Any, false));
        zookeeper.getData(root, events, null);
        fails(KeeperException.NoWatcherException.class, () -> zookeeper.removeWatches(root, events, WatcherType.Children, false));
        fails(KeeperException.NoWatcherException.class, () -> zookeeper.removeAllWatches(root + "/x", WatcherType.Any, false));
    }

    private static void removeAll(ZooKeeper zookeeper, String root) throws Exception {
        Events first = new Events();
        Events second = new Events();
        zookeeper.getData(root, first, null);
        zookeeper.getData(root, second, null);
        zookeeper.removeAllWatches(root, WatcherType.Data, false);
        first.expect(EventType.DataWatchRemoved, root);
        second.expect(EventType.DataWatchRemoved, root);
    }

    private static void removeOne(ZooKeeper zookeeper, String root) throws Exception {
        Events first = new Events();
        Events second = new Events();
        zookeeper.getData(root, first, null);
        zookeeper.getData(root, second, null);
        zookeeper.removeWatches(root, first, WatcherType.Data, false);
        first.expect(EventType.DataWatchRemoved, root);
        zookeeper.setData(root, bytes("x"), -1);
        second.expect(EventType.NodeDataChanged, root);
        first.expectNone();
    }

    private static void removePersistent(ZooKeeper zookeeper, String root) throws Exception {
        Events plain = new Events();
        zookeeper.addWatch(root, plain, AddWatchMode.PERSISTENT);
        zookeeper.removeWatches(root, plain, WatcherType.Persistent, false);
        plain.expect(EventType.PersistentWatchRemoved, root);
        Events recursive = new Events();
        zookeeper.addWatch(root, recursive, AddWatchMode.PERSISTENT_RECURSIVE);
        zookeeper.removeWatches(root, recursive, WatcherType.PersistentRecursive, false);
        recursive.expect(EventType.PersistentWatchRemoved, root);
        put(zookeeper, root + "/a", "");
        zookeeper.setData(root, bytes("x"), -1);
        zookeeper.exists(root, false);
        plain.expectNone();
        recursive.expectNone();
    }

    private static void inOrder(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        zookeeper.addWatch(root, events, AddWatchMode.PERSISTENT_RECURSIVE);
        try (ZooKeeper other = Suite.open()) {
            for (int index = 0; index < 1000; index++) {
                other.create(root + "/n" + index, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                        (code, path, context, name) -> { }, null);
            }
            for (int index = 0; index < 1000; index++) {
                events.expect(EventType.NodeCreated, root + "/n" + index);
            }
        }
    }

    private static void ephemerals(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        Watcher.Event.EventType deleted = EventType.NodeDeleted;
        ZooKeeper closed = Suite.open();
        closed.create(root + "/closed", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zookeeper.exists(root + "/closed", events);
        closed.close();
        events.expect(deleted, root + "/closed");
        try (CuttingProxy proxy = new CuttingProxy(Suite.SERVER);
                ZooKeeper lost = Suite.open(proxy.address(), 1000, new Events())) {
            lost.create(root + "/lost", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            that(zookeeper.exists(root + "/lost", events) != null, "expired while it was connected");
            proxy.isolate();
            events.expect(deleted, root + "/lost");
            proxy.heal();
        }
    }
}
