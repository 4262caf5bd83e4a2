package compat;

import static compat.Checks.equal;
import static compat.Checks.eventually;
import static compat.Checks.that;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.solr.client.solrj.SolrClient;
import org.apache.solr.client.solrj.SolrQuery;
import org.apache.solr.client.solrj.SolrRequest.METHOD;
import org.apache.solr.client.solrj.SolrServerException;
import org.apache.solr.client.solrj.impl.CloudHttp2SolrClient;
import org.apache.solr.client.solrj.impl.Http2SolrClient;
import org.apache.solr.client.solrj.request.CollectionAdminRequest;
import org.apache.solr.client.solrj.request.GenericSolrRequest;
import org.apache.solr.client.solrj.request.schema.SchemaRequest;
import org.apache.solr.common.SolrDocument;
import org.apache.solr.common.SolrException;
import org.apache.solr.common.SolrInputDocument;
import org.apache.solr.common.cloud.Replica;
import org.apache.solr.common.cloud.Slice;
import org.apache.solr.common.cloud.SolrZkClient;
import org.apache.solr.common.cloud.ZkMaintenanceUtils;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * A SolrCloud of two nodes whose state lies on the ensemble: what its users do, and what becomes of it when nodes and the
 * ensemble's servers end. One check builds on the others; each looks at Solr through its client, and at the znodes.
 */
public final class Solr {
    private static final String ORDERS = "orders";
    private static final int DOCUMENTS = 200;

    private final String ensemble;
    private final Nodes nodes;
    private final ZooKeeper zookeeper;
    /** The documents that were acknowledged. */
    private final Set<String> written = new HashSet<>();
    private CloudHttp2SolrClient client;

    private Solr(String ensemble) throws Exception {
        this.ensemble = ensemble;
        nodes = new Nodes(ensemble, 2);
        zookeeper = new ZooKeeper(ensemble, 60_000, event -> { });
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks();
        Solr solr = new Solr(Ensemble.all());
        checks.check("nodes register, one of them is the overseer", solr::nodesRegister);
        checks.check("Solr finds nothing wrong with the ensemble", solr::ensembleIsInOrder);
        checks.check("a collection is made, its replicas are active, documents are found", solr::collectionIsMade);
        checks.check("schema, settings, cluster properties and aliases are changed", solr::settings);
        checks.check("a shard is split", solr::shardIsSplit);
        checks.check("the overseer's node is killed: the other takes over and leads all shards", solr::overseerIsKilled);
        checks.check("the ensemble's leader is killed: no node loses its session, work goes on", solr::leaderIsKilled);
        checks.check("the whole ensemble is restarted: no node loses its session", solr::ensembleIsRestarted);
        checks.check("a collection is deleted, nodes that are stopped are gone at once", solr::collectionIsDeleted);
        checks.finish();
    }

    private void nodesRegister() throws Exception {
        zookeeper.create(Nodes.ROOT, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        try (SolrZkClient uploader = new SolrZkClient.Builder().withUrl(ensemble + Nodes.ROOT).withTimeout(60, TimeUnit.SECONDS).build()) {
            ZkMaintenanceUtils.uploadToZK(uploader, Path.of(System.getenv("CONFIGURATION")), "/configs/" + ORDERS, ZkMaintenanceUtils.UPLOAD_FILENAME_EXCLUDE_PATTERN);
        }
        nodes.start(1);
        eventually("there is an overseer", () -> overseer() == 1);
        nodes.start(2);
        eventually("both are there", () -> live().equals(Set.of(nodes.name(1), nodes.name(2))));
        equal(1, overseer());
        client = new CloudHttp2SolrClient.Builder(List.of(ensemble.split(",")), Optional.of(Nodes.ROOT)).build();
        client.connect(60, TimeUnit.SECONDS);
    }

    /** Its page about ZooKeeper asks each server with ruok, mntr and conf. */
    private void ensembleIsInOrder() throws Exception {
        Map<?, ?> status = (Map<?, ?>) client.request(new GenericSolrRequest(METHOD.GET, "/admin/zookeeper/status")).get("zkStatus");
        equal("green", status.get("status"));
        equal("ensemble", status.get("mode"));
        equal(3, ((Collection<?>) status.get("details")).size());
        that(status.get("errors") == null, "errors: " + status.get("errors"));
    }

    private void collectionIsMade() throws Exception {
        CollectionAdminRequest.createCollection(ORDERS, ORDERS, 2, 2).process(client);
        awaitActive(2);
        write("first");
        verify();
    }

    private void settings() throws Exception {
        new SchemaRequest.AddField(Map.of("name", "price", "type", "long", "stored", true)).process(client, ORDERS);
        that(text("/configs/" + ORDERS + "/managed-schema.xml").contains("\"price\""), "the field is in the znode");
        eventually("a document with the new field is taken", () -> attempt(() -> {
            SolrInputDocument document = document("priced");
            document.setField("price", 7);
            client.add(ORDERS, document);
            client.commit(ORDERS);
        }));
        written.add("priced");
        equal(7L, client.query(ORDERS, new SolrQuery("id:priced")).getResults().get(0).getFieldValue("price"));

        byte[] change = "{\"set-property\":{\"updateHandler.autoCommit.maxTime\":10000}}".getBytes(StandardCharsets.UTF_8);
        client.request(new GenericSolrRequest(METHOD.POST, "/config").setRequiresCollection(true).withContent(change, "application/json"), ORDERS);
        that(text("/configs/" + ORDERS + "/configoverlay.json").contains("10000"), "the setting is in its znode");

        CollectionAdminRequest.setClusterProperty("ext.compat", "yes").process(client);
        that(text("/clusterprops.json").contains("ext.compat"), "the property is in its znode");
        CollectionAdminRequest.createAlias("all", ORDERS).process(client);
        equal((long) written.size(), client.query("all", new SolrQuery("*:*")).getResults().getNumFound());
        // The schema was read anew by each replica.
        awaitActive(2);
        verify();
    }

    private void shardIsSplit() throws Exception {
        CollectionAdminRequest.splitShard(ORDERS).setShardName("shard1").process(client);
        eventually("its halves take over", () -> activeShards().equals(Set.of("shard1_0", "shard1_1", "shard2")));
        awaitActive(2);
        write("second");
        verify();
    }

    private void overseerIsKilled() throws Exception {
        int killed = overseer();
        int other = Nodes.other(killed);
        nodes.kill(killed);
        eventually("it is gone", () -> live().equals(Set.of(nodes.name(other))));
        eventually("the other is the overseer", () -> overseer() == other);
        eventually("the other leads all shards", () -> shards().stream().allMatch(shard -> shard.getLeader() != null
                && shard.getLeader().getNodeName().equals(nodes.name(other))));
        write("alone");
        CollectionAdminRequest.createAlias("every", ORDERS).process(client);
        nodes.start(killed);
        awaitActive(2);
        verify();
        equal(other, overseer());
    }

    private void leaderIsKilled() throws Exception {
        Set<Long> births = births();
        int leader = Ensemble.leader();
        Ensemble.kill(leader);
        write("meanwhile");
        CollectionAdminRequest.createCollection("meanwhile", ORDERS, 1, 2).process(client);
        Ensemble.start(leader);
        CollectionAdminRequest.deleteCollection("meanwhile").process(client);
        verify();
        equal(births, births());
    }

    private void ensembleIsRestarted() throws Exception {
        Set<Long> births = births();
        for (int member = 1; member <= 3; member++) {
            Ensemble.stop(member);
        }
        // Who only looks for documents notices nothing.
        for (int node = 1; node <= 2; node++) {
            try (SolrClient direct = new Http2SolrClient.Builder(nodes.address(node)).build()) {
                equal((long) written.size(), direct.query(ORDERS, new SolrQuery("*:*")).getResults().getNumFound());
            }
        }
        Ensemble.start(1, 2, 3);
        write("afterwards");
        CollectionAdminRequest.createAlias("all", ORDERS).process(client);
        verify();
        equal(births, births());
        ensembleIsInOrder();
    }

    private void collectionIsDeleted() throws Exception {
        for (String alias : List.of("all", "every")) {
            CollectionAdminRequest.deleteAlias(alias).process(client);
        }
        CollectionAdminRequest.deleteCollection(ORDERS).process(client);
        eventually("its znodes are gone", () -> zookeeper.exists(Nodes.ROOT + "/collections/" + ORDERS, false) == null);
        equal(List.of(), CollectionAdminRequest.listCollections(client));
        client.close();
        nodes.stop(1);
        equal(Set.of(nodes.name(2)), live());
        nodes.stop(2);
        equal(Set.of(), live());
        equal(0, overseer());
    }

    private static SolrInputDocument document(String id) {
        return new SolrInputDocument("id", id, "what", id);
    }

    /** Writes documents until all are acknowledged; who leads their shards may have to be found first. */
    private void write(String what) throws Exception {
        List<SolrInputDocument> documents = new ArrayList<>();
        Set<String> names = new HashSet<>();
        for (int number = 0; number < DOCUMENTS; number++) {
            names.add(what + "-" + number);
        }
        names.forEach(name -> documents.add(document(name)));
        eventually("documents are written", () -> attempt(() -> {
            client.add(ORDERS, documents);
            client.commit(ORDERS);
        }));
        written.addAll(names);
    }

    private static boolean attempt(Checks.Body body) throws Exception {
        try {
            body.run();
            return true;
        } catch (SolrServerException | SolrException | IOException problem) {
            System.out.println("again: " + problem);
            return false;
        }
    }

    /** All that was acknowledged is there and nothing else, on every replica. */
    private void verify() throws Exception {
        client.commit(ORDERS);
        for (int turn = 0; turn < 2; turn++) {
            Set<String> found = new HashSet<>();
            for (Slice shard : shards()) {
                List<Replica> replicas = new ArrayList<>(shard.getReplicas());
                equal(2, replicas.size());
                for (String id : idsOn(replicas.get(turn))) {
                    that(found.add(id), "twice: " + id);
                }
            }
            equal(written, found);
        }
    }

    private Set<String> idsOn(Replica replica) throws Exception {
        try (SolrClient direct = new Http2SolrClient.Builder(replica.getBaseUrl()).build()) {
            SolrQuery query = new SolrQuery("*:*");
            query.set("distrib", false);
            query.setRows(10 * DOCUMENTS);
            Set<String> ids = new HashSet<>();
            for (SolrDocument document : direct.query(replica.getCoreName(), query).getResults()) {
                ids.add((String) document.getFieldValue("id"));
            }
            return ids;
        }
    }

    private Collection<Slice> shards() {
        return client.getClusterState().getCollection(ORDERS).getActiveSlices();
    }

    private Set<String> activeShards() {
        Set<String> names = new TreeSet<>();
        shards().forEach(shard -> names.add(shard.getName()));
        return names;
    }

    /** Each shard has a leader and so many replicas that are active on nodes that are there. */
    private void awaitActive(int count) throws Exception {
        eventually(count + " replicas of each shard are active", () -> {
            Set<String> live = live();
            return shards().stream().allMatch(shard -> shard.getLeader() != null
                    && shard.getReplicas(replica -> replica.isActive(live)).size() == count);
        });
    }

    private static String path(String below) {
        return Nodes.ROOT + below;
    }

    private String text(String below) throws Exception {
        return new String(zookeeper.getData(path(below), false, null), StandardCharsets.UTF_8);
    }

    private Set<String> live() throws Exception {
        try {
            return Set.copyOf(zookeeper.getChildren(path("/live_nodes"), false));
        } catch (KeeperException.NoNodeException none) {
            return Set.of();
        }
    }

    /** The node that is the overseer; 0 while there is none. */
    private int overseer() throws Exception {
        try {
            Matcher name = Pattern.compile("-(127\\.0\\.0\\.1:\\d+_solr)-").matcher(text("/overseer_elect/leader"));
            that(name.find(), "the overseer's znode names it");
            return nodes.at(name.group(1));
        } catch (KeeperException.NoNodeException none) {
            return 0;
        }
    }

    /** When the znodes of nodes and overseer were made: others, if one has had to register anew. */
    private Set<Long> births() throws Exception {
        Set<Long> births = new TreeSet<>();
        for (String name : live()) {
            births.add(zookeeper.exists(path("/live_nodes/" + name), false).getCzxid());
        }
        births.add(zookeeper.exists(path("/overseer_elect/leader"), false).getCzxid());
        equal(3, births.size());
        return births;
    }
}
