package compat;

import java.nio.charset.StandardCharsets;
import java.util.UUID;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZKUtil;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** Apache's own Java client against the server named by ZK=host:port. */
public final class Suite {
    /** The server under test. */
    static final String SERVER = System.getenv("ZK");

    /** Whether it is a follower of an ensemble of three; else it stands alone. */
    static final boolean IS_ENSEMBLE = "3".equals(System.getenv("SERVERS"));

    /** Long enough that a busy machine does not lose a session that a check wants to keep. */
    static final int SESSION_TIMEOUT_MS = 30_000;

    private Suite() {}

    public static void main(String[] arguments) {
        Checks checks = new Checks();
        Operations.add(checks);
        AsyncCalls.add(checks);
        Multis.add(checks);
        Watches.add(checks);
        Sessions.add(checks);
        Rights.add(checks);
        checks.finish();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** Opens a session and waits until it is connected. */
    static ZooKeeper open(String address, int timeoutMs, Events events) throws Exception {
        ZooKeeper zookeeper = new ZooKeeper(address, timeoutMs, events);
        Checks.eventually("connected to " + address, () -> zookeeper.getState() == ZooKeeper.States.CONNECTED);
        return zookeeper;
    }

    static ZooKeeper open(String address) throws Exception {
        return open(address, SESSION_TIMEOUT_MS, new Events());
    }

    static ZooKeeper open() throws Exception {
        return open(SERVER);
    }

    /** What a check does with a session of its own and an empty znode of its own. */
    interface WithRoot {
        void run(ZooKeeper zookeeper, String root) throws Exception;
    }

    /** A check body with a session and a fresh root znode, both gone afterwards. */
    static Checks.Body withRoot(WithRoot body) {
        return () -> {
            try (ZooKeeper zookeeper = open()) {
                String root = "/java-" + UUID.randomUUID();
                zookeeper.create(root, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                body.run(zookeeper, root);
                try {
                    ZKUtil.deleteRecursive(zookeeper, root);
                } catch (KeeperException protectedNode) {
                    // A check about rights may leave what this session may not delete.
                }
            }
        };
    }

    /** Creates a persistent open znode with a text. */
    static void put(ZooKeeper zookeeper, String path, String text) throws Exception {
        zookeeper.create(path, bytes(text), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
    }

    /** A watcher for calls that need none. */
    static final Watcher IGNORE = event -> { };
}
