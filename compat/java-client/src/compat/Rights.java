package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.fails;
import static compat.Suite.bytes;
import static compat.Suite.put;
import static compat.Suite.text;
import static compat.Suite.withRoot;

import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/** Identities, access lists, and what they keep from whom. */
final class Rights {
    private Rights() {}

    static void add(Checks checks) {
        checks.check("digest: only the creator reads, writes and deletes", withRoot(Rights::digest));
        checks.check("each permission is asked for on its own", withRoot(Rights::permissions));
        checks.check("several identities on one connection", withRoot(Rights::severalIdentities));
        checks.check("setACL checks the version and getACL returns what was set", withRoot(Rights::setAcl));
        checks.check("getACL hides digests from those who may not administer", withRoot(Rights::masking));
        checks.check("invalid access lists are refused", withRoot(Rights::invalid));
        checks.check("the scheme ip", withRoot(Rights::ip));
        checks.check("the super user may do everything", withRoot(Rights::superUser));
        checks.check("an unknown scheme fails authentication", withRoot(Rights::unknownScheme));
        checks.check("whoAmI names the identities", withRoot(Rights::whoAmI));
        checks.check("rights hold within a multi", withRoot(Rights::withinMulti));
        checks.check("no event tells of what may not be read", withRoot(Rights::events));
        checks.check("reconfig: an observer in an ensemble, Unimplemented on a standalone server", withRoot(Rights::reconfig));
    }

    private static ZooKeeper openAs(String user, String password) throws Exception {
        ZooKeeper zookeeper = Suite.open();
        zookeeper.addAuthInfo("digest", bytes(user + ":" + password));
        return zookeeper;
    }

    private static List<ACL> only(int permissions, String scheme, String id) {
        return Arrays.asList(new ACL(permissions, new Id(scheme, id)));
    }

    private static void digest(ZooKeeper stranger, String root) throws Exception {
        try (ZooKeeper owner = openAs("owner", "secret"); ZooKeeper wrong = openAs("owner", "guess")) {
            String path = root + "/mine";
            owner.create(path, bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            for (ZooKeeper other : List.of(stranger, wrong)) {
                fails(KeeperException.NoAuthException.class, () -> other.getData(path, false, null));
                fails(KeeperException.NoAuthException.class, () -> other.setData(path, null, -1));
                fails(KeeperException.NoAuthException.class, () -> other.getChildren(path, false));
                fails(KeeperException.NoAuthException.class, () -> put(other, path + "/child", ""));
                fails(KeeperException.NoAuthException.class, () -> other.setACL(path, Ids.OPEN_ACL_UNSAFE, -1));
                fails(KeeperException.NoAuthException.class, () -> other.getACL(path, new Stat()));
                fails(KeeperException.NoAuthException.class, () -> other.exists(path, false));
            }
            equal("x", text(owner.getData(path, false, null)));
            put(owner, path + "/child", "");
            fails(KeeperException.NoAuthException.class, () -> stranger.delete(path + "/child", -1));
            owner.delete(path + "/child", -1);
            // To delete a znode takes a right on its parent only.
            stranger.delete(path, -1);
        }
    }

    private static void permissions(ZooKeeper zookeeper, String root) throws Exception {
        String path = root + "/p";
        zookeeper.create(path, bytes("x"), only(Perms.READ, "world", "anyone"), CreateMode.PERSISTENT);
        zookeeper.getData(path, false, null);
        fails(KeeperException.NoAuthException.class, () -> zookeeper.setData(path, null, -1));
        fails(KeeperException.NoAuthException.class, () -> put(zookeeper, path + "/c", ""));
        String writable = root + "/w";
        zookeeper.create(writable, null, only(Perms.WRITE | Perms.CREATE, "world", "anyone"), CreateMode.PERSISTENT);
        zookeeper.setData(writable, bytes("y"), -1);
        put(zookeeper, writable + "/c", "");
        fails(KeeperException.NoAuthException.class, () -> zookeeper.getData(writable, false, null));
        fails(KeeperException.NoAuthException.class, () -> zookeeper.delete(writable + "/c", -1));
    }

    private static void severalIdentities(ZooKeeper stranger, String root) throws Exception {
        try (ZooKeeper owner = openAs("one", "1")) {
            owner.addAuthInfo("digest", bytes("two:2"));
            owner.create(root + "/both", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            equal(2, owner.getACL(root + "/both", new Stat()).size());
        }
        try (ZooKeeper second = openAs("two", "2")) {
            equal("x", text(second.getData(root + "/both", false, null)));
        }
    }

    private static void setAcl(ZooKeeper zookeeper, String root) throws Exception {
        List<ACL> acl = Arrays.asList(new ACL(Perms.ALL, Ids.ANYONE_ID_UNSAFE), new ACL(Perms.READ, new Id("ip", "10.0.0.0/8")));
        Stat stat = zookeeper.setACL(root, acl, 0);
        equal(1, stat.getAversion());
        Stat read = new Stat();
        equal(acl, zookeeper.getACL(root, read));
        equal(stat, read);
        fails(KeeperException.BadVersionException.class, () -> zookeeper.setACL(root, acl, 0));
        fails(KeeperException.NoNodeException.class, () -> zookeeper.setACL(root + "/none", acl, -1));
    }

    private static void masking(ZooKeeper zookeeper, String root) throws Exception {
        String id = DigestAuthenticationProvider.generateDigest("reader:secret");
        List<ACL> acl = Arrays.asList(new ACL(Perms.READ | Perms.WRITE, Ids.ANYONE_ID_UNSAFE), new ACL(Perms.ALL, new Id("digest", id)));
        zookeeper.create(root + "/m", null, acl, CreateMode.PERSISTENT);
        equal("reader:x", zookeeper.getACL(root + "/m", new Stat()).get(1).getId().getId());
        try (ZooKeeper reader = openAs("reader", "secret")) {
            equal(id, reader.getACL(root + "/m", new Stat()).get(1).getId().getId());
        }
    }

    private static void invalid(ZooKeeper zookeeper, String root) throws Exception {
        for (List<ACL> acl : List.of(List.<ACL>of(), only(Perms.ALL, "nosuch", "x"), only(Perms.ALL, "ip", "no.ip"),
                only(Perms.ALL, "digest", "nocolon"), Ids.CREATOR_ALL_ACL)) {
            fails(KeeperException.InvalidACLException.class, () -> zookeeper.create(root + "/i", null, acl, CreateMode.PERSISTENT));
            fails(KeeperException.InvalidACLException.class, () -> zookeeper.setACL(root, acl, -1));
        }
    }

    private static void ip(ZooKeeper zookeeper, String root) throws Exception {
        zookeeper.create(root + "/near", bytes("x"), only(Perms.ALL, "ip", "127.0.0.1"), CreateMode.PERSISTENT);
        zookeeper.create(root + "/net", bytes("x"), only(Perms.ALL, "ip", "127.0.0.0/8"), CreateMode.PERSISTENT);
        zookeeper.create(root + "/far", bytes("x"), only(Perms.ALL, "ip", "10.1.2.3"), CreateMode.PERSISTENT);
        zookeeper.getData(root + "/near", false, null);
        zookeeper.getData(root + "/net", false, null);
        fails(KeeperException.NoAuthException.class, () -> zookeeper.getData(root + "/far", false, null));
    }

    private static void superUser(ZooKeeper zookeeper, String root) throws Exception {
        try (ZooKeeper owner = openAs("owner", "secret"); ZooKeeper superUser = openAs("super", "test")) {
            owner.create(root + "/mine", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            equal("x", text(superUser.getData(root + "/mine", false, null)));
            superUser.setACL(root + "/mine", Ids.OPEN_ACL_UNSAFE, -1);
            equal("x", text(zookeeper.getData(root + "/mine", false, null)));
        }
    }

    private static void unknownScheme(ZooKeeper ignored, String root) throws Exception {
        Events events = new Events();
        ZooKeeper zookeeper = Suite.open(Suite.SERVER, Suite.SESSION_TIMEOUT_MS, events);
        zookeeper.addAuthInfo("nosuch", bytes("x"));
        events.awaitState(KeeperState.AuthFailed);
        eventually("the handle is dead", () -> !zookeeper.getState().isAlive());
        zookeeper.close();
    }

    private static void whoAmI(ZooKeeper zookeeper, String root) throws Exception {
        zookeeper.addAuthInfo("digest", bytes("alice:secret"));
        Set<String> names = zookeeper.whoAmI().stream()
                .map(info -> info.getAuthScheme() + ":" + info.getUser()).collect(Collectors.toSet());
        equal(Set.of("ip:127.0.0.1", "digest:alice"), names);
    }

    private static void withinMulti(ZooKeeper stranger, String root) throws Exception {
        try (ZooKeeper owner = openAs("owner", "secret")) {
            owner.create(root + "/mine", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            fails(KeeperException.NoAuthException.class,
                    () -> stranger.multi(List.of(Op.setData(root, bytes("a"), -1), Op.setData(root + "/mine", bytes("b"), -1))));
            equal(0, stranger.exists(root, false).getVersion());
            fails(KeeperException.NoAuthException.class, () -> stranger.multi(List.of(Op.check(root + "/mine", 0))));
        }
    }

    private static void events(ZooKeeper stranger, String root) throws Exception {
        try (ZooKeeper owner = openAs("owner", "secret")) {
            Events events = new Events();
            stranger.addWatch(root, events, AddWatchMode.PERSISTENT_RECURSIVE);
            owner.create(root + "/hidden", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
            owner.setData(root + "/hidden", bytes("y"), -1);
            put(owner, root + "/open", "");
            events.expect(EventType.NodeCreated, root + "/open");
        }
    }

    private static void reconfig(ZooKeeper zookeeper, String root) throws Exception {
        Events events = new Events();
        try (ZooKeeperAdmin admin = new ZooKeeperAdmin(Suite.SERVER, Suite.SESSION_TIMEOUT_MS, events)) {
            if (Suite.IS_ENSEMBLE) {
                String observer = "server.9=localhost:1:2:observer;localhost:3";
                fails(KeeperException.NoAuthException.class,
                        () -> admin.reconfigure(observer, null, (String) null, -1, new Stat()));
                admin.addAuthInfo("digest", bytes("super:test"));
                Stat stat = new Stat();
                String with = Suite.text(admin.reconfigure(observer, null, (String) null, -1, stat));
                Checks.that(with.contains("\nserver.9=localhost:1:2:observer;"), "server.9 is not in " + with);
                fails(KeeperException.BadVersionException.class,
                        () -> admin.reconfigure(null, "9", (String) null, 1, new Stat()));
                String without = Suite.text(admin.reconfigure(null, "9", (String) null, -1, new Stat()));
                Checks.that(!without.contains("server.9"), "server.9 is still in " + without);
                return;
            }
            admin.addAuthInfo("digest", bytes("super:test"));
            fails(KeeperException.UnimplementedException.class,
                    () -> admin.reconfigure("server.9=localhost:1:2;3", null, (String) null, -1, new Stat()));
        }
    }
}
