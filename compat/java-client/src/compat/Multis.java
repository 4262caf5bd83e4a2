package compat;

import static compat.Checks.equal;
import static compat.Checks.fails;
import static compat.Checks.that;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.text;
import static compat.Suite.withRoot;

import java.util.ArrayList;
import java.util.List;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/** Transactions and batched reads. */
final class Multis {
    private Multis() {}

    static void add(Checks checks) {
        checks.check("multi: all kinds of operations at one zxid", withRoot(Multis::allKinds));
        checks.check("multi: a failure undoes everything and names the place", withRoot(Multis::failure));
        checks.check("multi: later operations see earlier ones", withRoot(Multis::seesItself));
        checks.check("multi: empty, and with TTL, container and ephemeral", withRoot(Multis::modes));
        checks.check("multi: sequential names within one transaction", withRoot(Multis::sequential));
        checks.check("multi: watches fire once it is whole", withRoot(Multis::watches));
        checks.check("multi of reads answers each for itself", withRoot(Multis::reads));
        checks.check("Transaction builder", withRoot(Multis::transaction));
        checks.check("a multi of a thousand operations", withRoot(Multis::large));
    }

    private static Op create(String path) {
        return Op.create(path, bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    private static void allKinds(ZooKeeper zookeeper, String root) throws Exception {
        put(zookeeper, root + "/old", "old");
        List<OpResult> results = zookeeper.multi(List.of(Op.check(root, 0), create(root + "/a"),
                Op.setData(root, bytes("m"), 0), Op.delete(root + "/old", 0)));
        equal(root + "/a", ((OpResult.CreateResult) results.get(1)).getPath());
        Stat set = ((OpResult.SetDataResult) results.get(2)).getStat();
        equal(1, set.getVersion());
        that(results.get(0) instanceof OpResult.CheckResult, "check answers " + results.get(0));
        that(results.get(3) instanceof OpResult.DeleteResult, "delete answers " + results.get(3));
        Stat parent = zookeeper.exists(root, false);
        equal(set.getMzxid(), zookeeper.exists(root + "/a", false).getCzxid());
        equal(set.getMzxid(), parent.getPzxid());
        equal(3, parent.getCversion());
    }

    private static void failure(ZooKeeper zookeeper, String root) throws Exception {
        KeeperException problem = fails(KeeperException.NoNodeException.class, () -> zookeeper.multi(
                List.of(create(root + "/a"), Op.delete(root + "/missing", -1), create(root + "/b"))));
        List<Integer> codes = new ArrayList<>();
        for (OpResult result : problem.getResults()) {
            codes.add(((OpResult.ErrorResult) result).getErr());
        }
        equal(List.of(0, Code.NONODE.intValue(), Code.RUNTIMEINCONSISTENCY.intValue()), codes);
        equal(List.of(), zookeeper.getChildren(root, false));
        equal(0, zookeeper.exists(root, false).getCversion());
        // The failed transaction must not have used up a name.
        equal(root + "/s-0000000000", zookeeper.create(root + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL));
    }

    private static void seesItself(ZooKeeper zookeeper, String root) throws Exception {
        zookeeper.multi(List.of(create(root + "/a"), create(root + "/a/b"), Op.setData(root + "/a/b", bytes("1"), 0),
                Op.check(root + "/a/b", 1), Op.delete(root + "/a/b", 1), Op.setData(root + "/a", bytes("2"), 0)));
        equal("2", text(zookeeper.getData(root + "/a", false, null)));
        equal(null, zookeeper.exists(root + "/a/b", false));
        fails(KeeperException.NotEmptyException.class,
                () -> zookeeper.multi(List.of(create(root + "/c"), create(root + "/c/d"), Op.delete(root + "/c", -1))));
    }

    private static void modes(ZooKeeper zookeeper, String root) throws Exception {
        equal(0, zookeeper.multi(List.of()).size());
        List<OpResult> results = zookeeper.multi(List.of(
                Op.create(root + "/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
                Op.create(root + "/c/child", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(root + "/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 600_000),
                Op.create(root + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL)));
        equal(4, results.size());
        equal(zookeeper.getSessionId(), zookeeper.exists(root + "/e", false).getEphemeralOwner());
        equal(3, zookeeper.getChildren(root, false).size());
    }

    private static void sequential(ZooKeeper zookeeper, String root) throws Exception {
        Op next = Op.create(root + "/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL);
        List<String> names = new ArrayList<>();
        for (OpResult result : zookeeper.multi(List.of(next, next, next))) {
            names.add(((OpResult.CreateResult) result).getPath());
        }
        equal(List.of(root + "/s-0000000000", root + "/s-0000000001", root + "/s-0000000002"), names);
    }

    private static void watches(ZooKeeper zookeeper, String root) throws Exception {
        Events data = new Events();
        Events children = new Events();
        Events failed = new Events();
        put(zookeeper, root + "/a", "");
        zookeeper.getData(root, data, null);
        zookeeper.getChildren(root, children);
        zookeeper.exists(root + "/never", failed);
        fails(KeeperException.class, () -> zookeeper.multi(List.of(create(root + "/never"), Op.check(root, 99))));
        data.expectNone();
        zookeeper.multi(List.of(Op.setData(root, bytes("1"), -1), Op.delete(root + "/a", -1), create(root + "/b")));
        data.expect(EventType.NodeDataChanged, root);
        children.expect(EventType.NodeChildrenChanged, root);
        zookeeper.exists(root, false);
        children.expectNone();
        failed.expectNone();
    }

    private static void reads(ZooKeeper zookeeper, String root) throws Exception {
        put(zookeeper, root + "/a", "data");
        List<OpResult> results = zookeeper.multi(List.of(Op.getData(root + "/a"), Op.getChildren(root), Op.getData(root + "/none")));
        equal("data", text(((OpResult.GetDataResult) results.get(0)).getData()));
        equal(List.of("a"), ((OpResult.GetChildrenResult) results.get(1)).getChildren());
        equal(Code.NONODE.intValue(), ((OpResult.ErrorResult) results.get(2)).getErr());
    }

    private static void transaction(ZooKeeper zookeeper, String root) throws Exception {
        List<OpResult> results = zookeeper.transaction().check(root, 0)
                .create(root + "/t", bytes("t"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)
                .setData(root, bytes("x"), 0).delete(root + "/t", 0).commit();
        equal(4, results.size());
        equal(List.of(), zookeeper.getChildren(root, false));
    }

    private static void large(ZooKeeper zookeeper, String root) throws Exception {
        List<Op> operations = new ArrayList<>();
        for (int index = 0; index < 1000; index++) {
            operations.add(create(root + "/n" + index));
        }
        equal(1000, zookeeper.multi(operations).size());
        equal(1000, zookeeper.exists(root, false).getNumChildren());
        equal(1000, zookeeper.exists(root, false).getCversion());
    }
}
