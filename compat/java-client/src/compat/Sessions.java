package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.fails;
import static compat.Checks.that;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.text;
import static compat.Suite.withRoot;

import java.util.List;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Sessions over lost connections: resumption, expiry, and the watches that come along. */
final class Sessions {
    private Sessions() {}

    static void add(Checks checks) {
        checks.check("the timeout is negotiated within the server's limits", Sessions::negotiation);
        checks.check("a session survives a cut connection with its ephemerals", withRoot(Sessions::reconnect));
        checks.check("watches are registered again after a cut", withRoot(Sessions::watchesAgain));
        checks.check("what happened during a cut is told afterwards", withRoot(Sessions::catchUp));
        checks.check("persistent watches go on after a cut", withRoot(Sessions::persistentAgain));
        checks.check("three thousand watches with long paths are registered again", withRoot(Sessions::manyWatches));
        checks.check("a session is resumed with its id and password", withRoot(Sessions::resume));
        checks.check("a wrong password does not resume a session", withRoot(Sessions::wrongPassword));
        checks.check("a closed session cannot be resumed", withRoot(Sessions::closedSession));
        checks.check("an expired session is told so, and its ephemerals are gone", withRoot(Sessions::expiry));
        checks.check("a session that only pings does not expire", withRoot(Sessions::idle));
        checks.check("a client that also takes read-only servers is served", withRoot(Sessions::readOnlyClient));
        checks.check("auth is repeated after a cut", withRoot(Sessions::authAgain));
    }

    private static void negotiation() throws Exception {
        try (ZooKeeper shortest = Suite.open(Suite.SERVER, 300, new Events());
                ZooKeeper longest = Suite.open(Suite.SERVER, 1_000_000, new Events());
                ZooKeeper middle = Suite.open(Suite.SERVER, 12_345, new Events())) {
            equal(List.of(1000, 60_000, 12_345),
                    List.of(shortest.getSessionTimeout(), longest.getSessionTimeout(), middle.getSessionTimeout()));
            that(shortest.getSessionId() != 0, "session 0");
            equal(16, shortest.getSessionPasswd().length);
        }
    }

    /** What a check does with a session through a proxy, its default watcher and an empty znode. */
    private interface WithProxy {
        void run(ZooKeeper zookeeper, Events events, CuttingProxy proxy) throws Exception;
    }

    private static void throughProxy(WithProxy body) throws Exception {
        Events events = new Events();
        try (CuttingProxy proxy = new CuttingProxy(Suite.SERVER);
                ZooKeeper zookeeper = Suite.open(proxy.address(), Suite.SESSION_TIMEOUT_MS, events)) {
            body.run(zookeeper, events, proxy);
            proxy.heal();
        }
    }

    private static void cutAndReconnect(ZooKeeper zookeeper, Events events, CuttingProxy proxy) throws Exception {
        proxy.isolate();
        events.awaitState(KeeperState.Disconnected);
        proxy.heal();
        events.awaitState(KeeperState.SyncConnected);
    }

    private static void reconnect(ZooKeeper observer, String root) throws Exception {
        throughProxy((zookeeper, events, proxy) -> {
            long session = zookeeper.getSessionId();
            zookeeper.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            for (int round = 0; round < 3; round++) {
                cutAndReconnect(zookeeper, events, proxy);
                equal(session, zookeeper.getSessionId());
                equal(session, zookeeper.exists(root + "/e", false).getEphemeralOwner());
                zookeeper.setData(root + "/e", bytes("" + round), round);
            }
        });
        eventually("the ephemeral goes with close", () -> observer.exists(root + "/e", false) == null);
    }

    private static void watchesAgain(ZooKeeper observer, String root) throws Exception {
        throughProxy((zookeeper, events, proxy) -> {
            Events data = new Events();
            Events exists = new Events();
            Events children = new Events();
            zookeeper.getData(root, data, null);
            zookeeper.exists(root + "/a", exists);
            zookeeper.getChildren(root, children);
            cutAndReconnect(zookeeper, events, proxy);
            zookeeper.exists(root, false);
            data.expectNone();
            exists.expectNone();
            children.expectNone();
            observer.setData(root, bytes("x"), -1);
            put(observer, root + "/a", "");
            data.expect(EventType.NodeDataChanged, root);
            exists.expect(EventType.NodeCreated, root + "/a");
            children.expect(EventType.NodeChildrenChanged, root);
        });
    }

    private static void catchUp(ZooKeeper observer, String root) throws Exception {
        put(observer, root + "/deleted", "");
        put(observer, root + "/quiet", "");
        throughProxy((zookeeper, events, proxy) -> {
            Events data = new Events();
            Events exists = new Events();
            Events children = new Events();
            Events deleted = new Events();
            Events quiet = new Events();
            zookeeper.getData(root, data, null);
            zookeeper.exists(root + "/a", exists);
            zookeeper.getChildren(root, children);
            zookeeper.getData(root + "/deleted", deleted, null);
            zookeeper.getData(root + "/quiet", quiet, null);
            proxy.isolate();
            events.awaitState(KeeperState.Disconnected);
            observer.setData(root, bytes("x"), -1);
            put(observer, root + "/a", "");
            observer.delete(root + "/deleted", -1);
            proxy.heal();
            data.expect(EventType.NodeDataChanged, root);
            exists.expect(EventType.NodeCreated, root + "/a");
            children.expect(EventType.NodeChildrenChanged, root);
            deleted.expect(EventType.NodeDeleted, root + "/deleted");
            observer.setData(root, bytes("y"), -1);
            zookeeper.sync(root);
            zookeeper.exists(root, false);
            data.expectNone();
            quiet.expectNone();
        });
    }

    private static void persistentAgain(ZooKeeper observer, String root) throws Exception {
        throughProxy((zookeeper, events, proxy) -> {
            Events plain = new Events();
            Events recursive = new Events();
            zookeeper.addWatch(root, plain, AddWatchMode.PERSISTENT);
            zookeeper.addWatch(root, recursive, AddWatchMode.PERSISTENT_RECURSIVE);
            cutAndReconnect(zookeeper, events, proxy);
            // The client sends setWatches before anything else, so an answered read means that it is done.
            zookeeper.exists(root, false);
            put(observer, root + "/a", "");
            put(observer, root + "/a/b", "");
            plain.expect(EventType.NodeChildrenChanged, root);
            recursive.expect(EventType.NodeCreated, root + "/a");
            recursive.expect(EventType.NodeCreated, root + "/a/b");
        });
    }

    private static void manyWatches(ZooKeeper observer, String root) throws Exception {
        String padding = "x".repeat(150);
        throughProxy((zookeeper, events, proxy) -> {
            Events watches = new Events();
            for (int index = 0; index < 3000; index++) {
                zookeeper.exists(root + "/" + padding + index, watches, (code, path, context, stat) -> { }, null);
            }
            zookeeper.exists(root, false);
            proxy.isolate();
            events.awaitState(KeeperState.Disconnected);
            put(observer, root + "/" + padding + 7, "");
            proxy.heal();
            watches.expect(EventType.NodeCreated, root + "/" + padding + 7);
            zookeeper.exists(root, false);
            put(observer, root + "/" + padding + 2999, "");
            watches.expect(EventType.NodeCreated, root + "/" + padding + 2999);
            put(observer, root + "/" + padding + 0, "");
            watches.expect(EventType.NodeCreated, root + "/" + padding + 0);
        });
    }

    private static ZooKeeper resumed(long session, byte[] password, Events events) throws Exception {
        return new ZooKeeper(Suite.SERVER, Suite.SESSION_TIMEOUT_MS, events, session, password);
    }

    private static void resume(ZooKeeper observer, String root) throws Exception {
        try (CuttingProxy proxy = new CuttingProxy(Suite.SERVER)) {
            ZooKeeper first = Suite.open(proxy.address());
            first.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            proxy.isolate();
            Events events = new Events();
            try (ZooKeeper second = resumed(first.getSessionId(), first.getSessionPasswd(), events)) {
                events.awaitState(KeeperState.SyncConnected);
                equal(first.getSessionId(), second.getSessionId());
                equal(List.of(root + "/e"), second.getEphemerals());
                second.setData(root + "/e", bytes("mine"), 0);
            }
            eventually("closing the resumed session removes the ephemeral", () -> observer.exists(root + "/e", false) == null);
            proxy.heal();
            eventually("the first handle learns that its session is gone", () -> first.getState() == ZooKeeper.States.CLOSED);
            first.close();
        }
    }

    private static void wrongPassword(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        ZooKeeper thief = resumed(zookeeper.getSessionId(), new byte[16], events);
        events.awaitState(KeeperState.Expired);
        fails(KeeperException.SessionExpiredException.class, () -> thief.exists(root, false));
        // The rightful owner may lose its connection (Apache closes it before it looks at the password), not its session.
        eventually("the owner's session is served", () -> {
            try {
                return zookeeper.exists(root, false) != null;
            } catch (KeeperException.ConnectionLossException reconnects) {
                return false;
            }
        });
    }

    private static void closedSession(ZooKeeper zookeeper, String root) throws Exception {
        ZooKeeper closed = Suite.open();
        long session = closed.getSessionId();
        byte[] password = closed.getSessionPasswd();
        closed.close();
        Events events = new Events();
        resumed(session, password, events);
        events.awaitState(KeeperState.Expired);
    }

    private static void expiry(ZooKeeper observer, String root) throws Exception {
        Events events = new Events();
        try (CuttingProxy proxy = new CuttingProxy(Suite.SERVER)) {
            ZooKeeper zookeeper = Suite.open(proxy.address(), 1000, events);
            zookeeper.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            zookeeper.create(root + "/p", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            long start = System.nanoTime();
            proxy.isolate();
            eventually("the ephemeral goes", () -> observer.exists(root + "/e", false) == null);
            that(System.nanoTime() - start > 500_000_000L, "expired long before its timeout");
            proxy.heal();
            events.awaitState(KeeperState.Expired);
            fails(KeeperException.SessionExpiredException.class, () -> zookeeper.getData(root, false, null));
            that(observer.exists(root + "/p", false) != null, "a persistent znode went with the session");
            zookeeper.close();
        }
    }

    private static void idle(ZooKeeper observer, String root) throws Exception {
        Events events = new Events();
        try (ZooKeeper zookeeper = Suite.open(Suite.SERVER, 4000, events)) {
            zookeeper.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
            Thread.sleep(9000);
            that(observer.exists(root + "/e", false) != null, "expired although it pinged");
            equal(zookeeper.getSessionId(), observer.exists(root + "/e", false).getEphemeralOwner());
        }
    }

    private static void readOnlyClient(ZooKeeper observer, String root) throws Exception {
        Events events = new Events();
        try (ZooKeeper zookeeper = new ZooKeeper(Suite.SERVER, Suite.SESSION_TIMEOUT_MS, events, true)) {
            events.awaitState(KeeperState.SyncConnected);
            zookeeper.setData(root, bytes("written"), 0);
            equal("written", text(observer.getData(root, false, null)));
        }
    }

    private static void authAgain(ZooKeeper observer, String root) throws Exception {
        throughProxy((zookeeper, events, proxy) -> {
            zookeeper.addAuthInfo("digest", bytes("again:secret"));
            zookeeper.create(root + "/mine", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            fails(KeeperException.NoAuthException.class, () -> observer.getData(root + "/mine", false, null));
            cutAndReconnect(zookeeper, events, proxy);
            equal("x", text(zookeeper.getData(root + "/mine", false, null)));
            zookeeper.delete(root + "/mine", -1);
        });
    }
}
