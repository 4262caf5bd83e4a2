package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.hadoop.hbase.ClusterMetrics;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.shaded.protobuf.ProtobufUtil;
import org.apache.hadoop.hbase.zookeeper.ZKMetadata;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;

/**
 * HBase on the ensemble: two masters, of which one waits, and two region servers. Its servers and clients find each other by
 * znodes, and learn by them who has died. One check builds on the others.
 */
public final class HBase {
    private static final TableName TABLE = TableName.valueOf("orders");
    private static final byte[] FAMILY = bytes("f");
    private static final byte[] COLUMN = bytes("c");
    private static final int REGIONS = 4;

    private final Cluster cluster;
    private final ZooKeeper zookeeper;
    /** What was written and acknowledged. */
    private final Map<String, String> written = new TreeMap<>();
    private Connection connection;

    private HBase(String ensemble) throws Exception {
        cluster = new Cluster(ensemble);
        zookeeper = new ZooKeeper(ensemble, 60_000, event -> { });
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks();
        HBase hbase = new HBase(Ensemble.all());
        checks.check("a master leads, another waits, region servers register", hbase::serversRegister);
        checks.check("a table is made, written and read", hbase::tableIsMade);
        checks.check("the ensemble's leader is killed: nobody loses its session, work goes on", hbase::leaderIsKilled);
        checks.check("a region server is killed: the other serves what it had", hbase::regionServerIsKilled);
        checks.check("the master is killed: the one that waited leads", hbase::masterIsKilled);
        checks.check("the whole ensemble is restarted: nobody loses its session", hbase::ensembleIsRestarted);
        checks.check("a table is deleted", hbase::tableIsDeleted);
        checks.finish();
    }

    private void serversRegister() throws Exception {
        cluster.startMaster("master-1");
        eventually("there is a master", () -> masterName() != null);
        cluster.startMaster("master-2");
        cluster.startRegionServer("regions-1");
        cluster.startRegionServer("regions-2");
        connection = ConnectionFactory.createConnection(cluster.configuration());
        eventually("both region servers are there", () -> children("/rs").size() == 2);
        eventually("one master waits", () -> children("/backup-masters").size() == 1);
        eventually("the master serves", () -> {
            try (Admin admin = connection.getAdmin()) {
                ClusterMetrics metrics = admin.getClusterMetrics();
                return metrics.getLiveServerMetrics().size() == 2 && metrics.getBackupMasterNames().size() == 1;
            } catch (java.io.IOException starting) {
                return false;
            }
        });
    }

    private void tableIsMade() throws Exception {
        byte[][] splits = {bytes("b"), bytes("c"), bytes("d")};
        try (Admin admin = connection.getAdmin()) {
            admin.createTable(TableDescriptorBuilder.newBuilder(TABLE)
                    .setColumnFamily(ColumnFamilyDescriptorBuilder.of(FAMILY)).build(), splits);
            equal(REGIONS, admin.getRegions(TABLE).size());
        }
        write("first");
        verify();
    }

    private void leaderIsKilled() throws Exception {
        Set<Long> births = births();
        int leader = Ensemble.leader();
        Ensemble.kill(leader);
        write("second");
        // A client that comes now finds the servers, too.
        try (Connection another = ConnectionFactory.createConnection(cluster.configuration()); Table table = another.getTable(TABLE)) {
            that(table.exists(new Get(bytes("a0"))), "the row is there");
        }
        Ensemble.start(leader);
        verify();
        equal(births, births());
    }

    private void regionServerIsKilled() throws Exception {
        String killed = children("/rs").get(0);
        cluster.kill(cluster.at(killed));
        // Waits for the regions that were there.
        write("third");
        verify();
        eventually("it is gone", () -> !children("/rs").contains(killed));
        cluster.startRegionServer("regions-3");
        eventually("another is there", () -> children("/rs").size() == 2);
    }

    private void masterIsKilled() throws Exception {
        String killed = masterName();
        String waits = children("/backup-masters").get(0);
        cluster.kill(cluster.at(killed));
        eventually("the other leads", () -> waits.equals(masterName()));
        eventually("nobody waits any more", () -> children("/backup-masters").isEmpty());
        cluster.startMaster("master-3");
        eventually("another waits", () -> children("/backup-masters").size() == 1);
        try (Admin admin = connection.getAdmin()) {
            admin.flush(TABLE);
            equal(REGIONS, admin.getRegions(TABLE).size());
        }
        write("fourth");
        verify();
    }

    private void ensembleIsRestarted() throws Exception {
        Set<Long> births = births();
        for (int member = 1; member <= 3; member++) {
            Ensemble.stop(member);
        }
        // Who knows the servers does without for a while.
        write("fifth");
        Ensemble.start(1, 2, 3);
        verify();
        try (Admin admin = connection.getAdmin()) {
            equal(2, admin.getClusterMetrics().getLiveServerMetrics().size());
        }
        equal(births, births());
    }

    private void tableIsDeleted() throws Exception {
        try (Admin admin = connection.getAdmin()) {
            admin.disableTable(TABLE);
            admin.deleteTable(TABLE);
            that(!admin.tableExists(TABLE), "the table is gone");
            admin.shutdown();
        }
        eventually("the region servers have ended", () -> children("/rs").isEmpty());
        eventually("the master has ended", () -> masterName() == null);
    }

    private void write(String what) throws Exception {
        List<Put> puts = new ArrayList<>();
        Map<String, String> rows = new TreeMap<>();
        for (String region : List.of("a", "b", "c", "d")) {
            for (int number = 0; number < 50; number++) {
                rows.put(region + number, what + " " + number);
            }
        }
        rows.forEach((row, value) -> puts.add(new Put(bytes(row)).addColumn(FAMILY, COLUMN, bytes(value))));
        try (Table table = connection.getTable(TABLE)) {
            table.put(puts);
        }
        written.putAll(rows);
    }

    /** All that was acknowledged is there, and nothing else. */
    private void verify() throws Exception {
        Map<String, String> found = new TreeMap<>();
        try (Table table = connection.getTable(TABLE); ResultScanner scanner = table.getScanner(new Scan())) {
            for (Result result : scanner) {
                found.put(text(result.getRow()), text(result.getValue(FAMILY, COLUMN)));
            }
        }
        equal(written, found);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private List<String> children(String below) throws Exception {
        try {
            return zookeeper.getChildren("/hbase" + below, false).stream().filter(name -> name.contains(",")).toList();
        } catch (KeeperException.NoNodeException none) {
            return List.of();
        }
    }

    /** The master that leads; null while none does. */
    private String masterName() throws Exception {
        try {
            byte[] message = zookeeper.getData("/hbase/master", false, null);
            return ProtobufUtil.parseServerNameFrom(ZKMetadata.removeMetaData(message)).getServerName();
        } catch (KeeperException.NoNodeException none) {
            return null;
        }
    }

    /** When the servers' znodes were made: others, if one has had to register anew. */
    private Set<Long> births() throws Exception {
        Set<Long> births = new TreeSet<>();
        for (String server : children("/rs")) {
            births.add(zookeeper.exists("/hbase/rs/" + server, false).getCzxid());
        }
        births.add(zookeeper.exists("/hbase/master", false).getCzxid());
        return births;
    }
}
