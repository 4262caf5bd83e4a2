package compat;

import java.nio.file.Path;
import org.apache.solr.embedded.JettyConfig;
import org.apache.solr.embedded.JettySolrRunner;

/** One node of the SolrCloud, as a process: FOLDER PORT. Where ZooKeeper is says the property zkHost, as for Solr's own script. */
public final class Node {
    private Node() {}

    public static void main(String[] arguments) throws Exception {
        JettyConfig settings = JettyConfig.builder().setPort(Integer.parseInt(arguments[1])).setContext("/solr").build();
        JettySolrRunner node = new JettySolrRunner(Path.of(arguments[0]).toString(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.stop();
            } catch (Exception problem) {
                problem.printStackTrace();
            }
        }));
        node.start();
    }
}
