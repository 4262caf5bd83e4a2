package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.fails;
import static compat.Checks.that;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.text;
import static compat.Suite.withRoot;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.FourLetterWordMain;
import org.apache.zookeeper.data.Stat;

/** Each call in its synchronous form: results, Stats and errors. */
final class Operations {
    private Operations() {}

    static void add(Checks checks) {
        checks.check("create returns the path and the data is read back", withRoot(Operations::createAndRead));
        checks.check("create with a Stat returns it", withRoot(Operations::createWithStat));
        checks.check("null and empty data stay different", withRoot(Operations::nullAndEmpty));
        checks.check("sequential names count per parent, ten digits", withRoot(Operations::sequential));
        checks.check("sequential names are unique and dense over concurrent sessions", withRoot(Operations::concurrent));
        checks.check("setData, children and delete move the Stat", withRoot(Operations::stats));
        checks.check("create errors: NoNode, NodeExists, NoChildrenForEphemerals", withRoot(Operations::createErrors));
        checks.check("delete errors: NoNode, NotEmpty, BadVersion", withRoot(Operations::deleteErrors));
        checks.check("setData errors: NoNode, BadVersion", withRoot(Operations::setDataErrors));
        checks.check("exists returns null for what is not there", withRoot(Operations::exists));
        checks.check("getChildren in both forms", withRoot(Operations::children));
        checks.check("five thousand children are listed", withRoot(Operations::manyChildren));
        checks.check("getAllChildrenNumber counts the whole subtree", withRoot(Operations::allChildrenNumber));
        checks.check("getEphemerals lists the session's own, by prefix", withRoot(Operations::ephemerals));
        checks.check("container znode goes after its last child", withRoot(Operations::container));
        checks.check("TTL znode goes when its time is over, unless it has children", withRoot(Operations::timeToLive));
        checks.check("sync returns", withRoot((zookeeper, root) -> zookeeper.sync(root)));
        checks.check("the largest data fits and more closes the connection", withRoot(Operations::largeData));
        checks.check("names in any script", withRoot(Operations::unicode));
        checks.check("chroot: paths, children and ephemerals are relative", withRoot(Operations::chroot));
        checks.check("system znodes are there", withRoot(Operations::systemNodes));
        checks.check("getConfig answers", withRoot(Operations::config));
        checks.check("four-letter words through the client's FourLetterWordMain", Operations::fourLetterWords);
    }

    private static void createAndRead(ZooKeeper zookeeper, String root) throws Exception {
        String path = root + "/a";
        equal(path, zookeeper.create(path, bytes("one"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        Stat stat = new Stat();
        equal("one", text(zookeeper.getData(path, false, stat)));
        equal(stat, zookeeper.exists(path, false));
        equal(3, stat.getDataLength());
        equal(0L, stat.getEphemeralOwner());
    }

    private static void createWithStat(ZooKeeper zookeeper, String root) throws Exception {
        Stat created = new Stat();
        zookeeper.create(root + "/s", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, created);
        equal(zookeeper.exists(root + "/s", false), created);
        zookeeper.create(root + "/e", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, created);
        equal(zookeeper.getSessionId(), created.getEphemeralOwner());
        String path = zookeeper.create(root + "/q", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL, created);
        equal(zookeeper.exists(path, false), created);
    }

    private static void nullAndEmpty(ZooKeeper zookeeper, String root) throws Exception {
        zookeeper.create(root + "/null", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zookeeper.create(root + "/empty", new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        Stat stat = new Stat();
        that(zookeeper.getData(root + "/null", false, stat) == null, "null data came back as bytes");
        equal(0, stat.getDataLength());
        equal(0, zookeeper.getData(root + "/empty", false, null).length);
        zookeeper.setData(root + "/empty", null, -1);
        that(zookeeper.getData(root + "/empty", false, null) == null, "setData(null) left bytes");
    }

    private static void sequential(ZooKeeper zookeeper, String root) throws Exception {
        String name = root + "/n-";
        equal(name + "0000000000", create(zookeeper, name, CreateMode.PERSISTENT_SEQUENTIAL));
        equal(name + "0000000001", create(zookeeper, name, CreateMode.EPHEMERAL_SEQUENTIAL));
        // The counter is the parent's number of child changes: a plain child moves it too, a deletion does not.
        put(zookeeper, root + "/plain", "");
        equal(name + "0000000003", create(zookeeper, name, CreateMode.PERSISTENT_SEQUENTIAL));
        zookeeper.delete(name + "0000000003", -1);
        equal(name + "0000000004", create(zookeeper, name, CreateMode.PERSISTENT_SEQUENTIAL));
        equal(root + "/0000000005", create(zookeeper, root + "/", CreateMode.PERSISTENT_SEQUENTIAL));
    }

    private static String create(ZooKeeper zookeeper, String path, CreateMode mode) throws Exception {
        return zookeeper.create(path, null, Ids.OPEN_ACL_UNSAFE, mode);
    }

    private static void concurrent(ZooKeeper zookeeper, String root) throws Exception {
        Set<String> names = new ConcurrentSkipListSet<>();
        List<Thread> threads = new ArrayList<>();
        for (int index = 0; index < 4; index++) {
            Thread thread = new Thread(() -> {
                try (ZooKeeper own = Suite.open()) {
                    for (int count = 0; count < 50; count++) {
                        names.add(create(own, root + "/q-", CreateMode.PERSISTENT_SEQUENTIAL));
                    }
                } catch (Exception problem) {
                    names.add(problem.toString());
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        Set<String> expected = new TreeSet<>();
        for (int index = 0; index < 200; index++) {
            expected.add(String.format("%s/q-%010d", root, index));
        }
        equal(expected, new TreeSet<>(names));
    }

    private static void stats(ZooKeeper zookeeper, String root) throws Exception {
        Stat start = zookeeper.exists(root, false);
        equal(List.of(0, 0, 0, 0), List.of(start.getVersion(), start.getCversion(), start.getAversion(), start.getNumChildren()));
        equal(start.getCzxid(), start.getMzxid());
        equal(start.getCzxid(), start.getPzxid());

        Stat written = zookeeper.setData(root, bytes("four"), 0);
        equal(1, written.getVersion());
        that(written.getMzxid() > written.getCzxid(), "mzxid did not grow");
        equal(start.getPzxid(), written.getPzxid());
        equal(4, written.getDataLength());

        put(zookeeper, root + "/a", "");
        put(zookeeper, root + "/b", "");
        zookeeper.delete(root + "/a", 0);
        Stat parent = zookeeper.exists(root, false);
        equal(List.of(1, 3, 1), List.of(parent.getVersion(), parent.getCversion(), parent.getNumChildren()));
        that(parent.getPzxid() > zookeeper.exists(root + "/b", false).getCzxid(), "pzxid is not the deletion's");
        equal(written.getMzxid(), parent.getMzxid());

        // A grandchild is not the parent's business.
        put(zookeeper, root + "/b/c", "");
        equal(parent, zookeeper.exists(root, false));
        zookeeper.setACL(root, Ids.OPEN_ACL_UNSAFE, 0);
        equal(1, zookeeper.exists(root, false).getAversion());
    }

    private static void createErrors(ZooKeeper zookeeper, String root) throws Exception {
        KeeperException missing = fails(KeeperException.NoNodeException.class, () -> put(zookeeper, root + "/x/y", ""));
        equal(root + "/x/y", missing.getPath());
        fails(KeeperException.NodeExistsException.class, () -> put(zookeeper, root, ""));
        create(zookeeper, root + "/e", CreateMode.EPHEMERAL);
        fails(KeeperException.NoChildrenForEphemeralsException.class, () -> put(zookeeper, root + "/e/child", ""));
        fails(IllegalArgumentException.class, () -> put(zookeeper, root + "/./a", ""));
        fails(KeeperException.NodeExistsException.class, () -> put(zookeeper, "/", ""));
    }

    private static void deleteErrors(ZooKeeper zookeeper, String root) throws Exception {
        put(zookeeper, root + "/a", "");
        fails(KeeperException.NoNodeException.class, () -> zookeeper.delete(root + "/missing", -1));
        fails(KeeperException.NotEmptyException.class, () -> zookeeper.delete(root, -1));
        fails(KeeperException.BadVersionException.class, () -> zookeeper.delete(root + "/a", 7));
        fails(KeeperException.BadVersionException.class, () -> zookeeper.delete(root, 7));
        zookeeper.delete(root + "/a", 0);
    }

    private static void setDataErrors(ZooKeeper zookeeper, String root) throws Exception {
        fails(KeeperException.NoNodeException.class, () -> zookeeper.setData(root + "/missing", null, -1));
        fails(KeeperException.BadVersionException.class, () -> zookeeper.setData(root, null, 1));
        equal(1, zookeeper.setData(root, bytes("a"), 0).getVersion());
        equal(2, zookeeper.setData(root, bytes("a"), -1).getVersion());
    }

    private static void exists(ZooKeeper zookeeper, String root) throws Exception {
        equal(null, zookeeper.exists(root + "/missing", false));
        equal(null, zookeeper.exists(root + "/missing/below", false));
        fails(KeeperException.NoNodeException.class, () -> zookeeper.getData(root + "/missing", false, null));
        fails(KeeperException.NoNodeException.class, () -> zookeeper.getChildren(root + "/missing", false));
        fails(KeeperException.NoNodeException.class, () -> zookeeper.getACL(root + "/missing", new Stat()));
    }

    private static void children(ZooKeeper zookeeper, String root) throws Exception {
        equal(List.of(), zookeeper.getChildren(root, false));
        for (String name : List.of("b", "a", "c")) {
            put(zookeeper, root + "/" + name, "");
        }
        Stat stat = new Stat();
        equal(Set.of("a", "b", "c"), Set.copyOf(zookeeper.getChildren(root, false, stat)));
        equal(Set.of("a", "b", "c"), Set.copyOf(zookeeper.getChildren(root, false)));
        equal(zookeeper.exists(root, false), stat);
    }

    private static void manyChildren(ZooKeeper zookeeper, String root) throws Exception {
        for (int index = 0; index < 5000; index++) {
            zookeeper.create(root + "/child-with-a-longer-name-" + index, null, Ids.OPEN_ACL_UNSAFE,
                    CreateMode.PERSISTENT, (code, path, context, name) -> { }, null);
        }
        eventually("all are there", () -> zookeeper.exists(root, false).getNumChildren() == 5000);
        equal(5000, zookeeper.getChildren(root, false).size());
    }

    private static void allChildrenNumber(ZooKeeper zookeeper, String root) throws Exception {
        equal(0, zookeeper.getAllChildrenNumber(root));
        for (String name : List.of("a", "a/b", "a/b/c", "ab", "ab/c")) {
            put(zookeeper, root + "/" + name, "");
        }
        equal(5, zookeeper.getAllChildrenNumber(root));
        equal(2, zookeeper.getAllChildrenNumber(root + "/a"));
        fails(KeeperException.NoNodeException.class, () -> zookeeper.getAllChildrenNumber(root + "/missing"));
        that(zookeeper.getAllChildrenNumber("/") >= 6, "the root counts too few");
    }

    private static void ephemerals(ZooKeeper zookeeper, String root) throws Exception {
        create(zookeeper, root + "/e1", CreateMode.EPHEMERAL);
        create(zookeeper, root + "/e2", CreateMode.EPHEMERAL);
        put(zookeeper, root + "/sub", "");
        create(zookeeper, root + "/sub/e3", CreateMode.EPHEMERAL);
        equal(Set.of(root + "/e1", root + "/e2", root + "/sub/e3"), Set.copyOf(zookeeper.getEphemerals()));
        equal(Set.of(root + "/sub/e3"), Set.copyOf(zookeeper.getEphemerals(root + "/sub")));
        equal(List.of(), zookeeper.getEphemerals(root + "/none"));
        try (ZooKeeper other = Suite.open()) {
            equal(List.of(), other.getEphemerals());
        }
    }

    private static void container(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        create(zookeeper, root + "/c", CreateMode.CONTAINER);
        put(zookeeper, root + "/c/child", "");
        zookeeper.exists(root + "/c", events);
        zookeeper.delete(root + "/c/child", -1);
        events.expect(org.apache.zookeeper.Watcher.Event.EventType.NodeDeleted, root + "/c");
        equal(null, zookeeper.exists(root + "/c", false));
    }

    private static void timeToLive(ZooKeeper zookeeper, String root) throws Exception {
        Stat stat = new Stat();
        zookeeper.create(root + "/t", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 1500);
        zookeeper.create(root + "/kept", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 100);
        put(zookeeper, root + "/kept/child", "");
        String name = zookeeper.create(root + "/q-", null, Ids.OPEN_ACL_UNSAFE,
                CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 600_000);
        equal(root + "/q-0000000002", name);
        that(zookeeper.exists(root + "/t", false) != null, "gone at once");
        eventually("the TTL znode goes", () -> zookeeper.exists(root + "/t", false) == null);
        that(zookeeper.exists(root + "/kept", false) != null, "one with a child was removed");
        that(zookeeper.exists(name, false) != null, "removed before its time");
        fails(IllegalArgumentException.class, () -> zookeeper.create(root + "/bad", null, Ids.OPEN_ACL_UNSAFE,
                CreateMode.PERSISTENT_WITH_TTL, stat, 0));
    }

    private static void largeData(ZooKeeper zookeeper, String root) throws Exception {
        byte[] large = new byte[1024 * 1024 - 1024];
        Arrays.fill(large, (byte) 7);
        zookeeper.create(root + "/large", large, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        that(Arrays.equals(large, zookeeper.getData(root + "/large", false, null)), "the data differs");
        fails(KeeperException.ConnectionLossException.class,
                () -> zookeeper.setData(root + "/large", new byte[1024 * 1024 + 1024], -1));
        eventually("connected again, and nothing was written", () -> {
            try {
                return zookeeper.exists(root + "/large", false).getVersion() == 0;
            } catch (KeeperException.ConnectionLossException reconnects) {
                return false;
            }
        });
    }

    private static void unicode(ZooKeeper zookeeper, String root) throws Exception {
        List<String> names = List.of("Zoowärter", "动物园", "حديقة", "with space", "a%2Fb", "..a");
        for (String name : names) {
            put(zookeeper, root + "/" + name, name);
        }
        List<String> found = new ArrayList<>(zookeeper.getChildren(root, false));
        Collections.sort(found);
        List<String> expected = new ArrayList<>(names);
        Collections.sort(expected);
        equal(expected, found);
        equal("动物园", text(zookeeper.getData(root + "/动物园", false, null)));
    }

    private static void chroot(ZooKeeper zookeeper, String root) throws Exception {
        put(zookeeper, root + "/jail", "top");
        try (ZooKeeper inside = Suite.open(Suite.SERVER + root + "/jail")) {
            equal("top", text(inside.getData("/", false, null)));
            equal("/a", inside.create("/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL));
            equal(List.of("a"), inside.getChildren("/", false));
            that(zookeeper.exists(root + "/jail/a", false) != null, "not below the chroot");
            // The one answer that the client does not strip of its chroot.
            equal(List.of(root + "/jail/a"), inside.getEphemerals("/"));
            Events events = new Events();
            inside.exists("/b", events);
            inside.create("/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            events.expect(org.apache.zookeeper.Watcher.Event.EventType.NodeCreated, "/b");
            equal("/s-0000000002", inside.create("/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL));
        }
    }

    private static void systemNodes(ZooKeeper zookeeper, String root) throws Exception {
        that(zookeeper.getChildren("/", false).contains("zookeeper"), "no /zookeeper");
        equal(Set.of("config", "quota"), Set.copyOf(zookeeper.getChildren("/zookeeper", false)));
        equal(List.of(), zookeeper.getChildren("/zookeeper/quota", false));
        fails(KeeperException.BadArgumentsException.class, () -> zookeeper.delete("/", -1));
    }

    private static void config(ZooKeeper zookeeper, String root) throws Exception {
        Stat stat = new Stat();
        String config = text(zookeeper.getConfig(false, stat));
        that(config == null || config.isEmpty() || config.contains("version="), "unexpected config: " + config);
        equal(zookeeper.exists("/zookeeper/config", false), stat);
        fails(KeeperException.NoAuthException.class, () -> zookeeper.setData("/zookeeper/config", bytes("x"), -1));
    }

    private static void fourLetterWords() throws Exception {
        int colon = Suite.SERVER.lastIndexOf(':');
        String host = Suite.SERVER.substring(0, colon);
        int port = Integer.parseInt(Suite.SERVER.substring(colon + 1));
        equal("imok", FourLetterWordMain.send4LetterWord(host, port, "ruok").trim());
        String mode = Suite.IS_ENSEMBLE ? "Mode: follower" : "Mode: standalone";
        that(FourLetterWordMain.send4LetterWord(host, port, "srvr").contains(mode), "srvr without " + mode);
        for (String line : FourLetterWordMain.send4LetterWord(host, port, "mntr").split("\n")) {
            that(line.matches("zk_[^\\t]+\\t.*"), "mntr prints: " + line);
        }
    }
}
