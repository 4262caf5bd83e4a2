package compat;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;

/** An application, as a process: NAME MASTERS. For each number that it reads it has the executors add up so many, and prints the sum. */
public final class Application {
    private Application() {}

    public static void main(String[] arguments) throws Exception {
        SparkConf settings = new SparkConf().setAppName(arguments[0]).setMaster(arguments[1])
                .set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1")
                .set("spark.ui.enabled", "false").set("spark.cores.max", "1").set("spark.executor.memory", "512m")
                .set("spark.executor.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
        try (JavaSparkContext context = new JavaSparkContext(settings);
                BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                List<Double> numbers = new ArrayList<>();
                for (int number = 1; number <= Integer.parseInt(line); number++) {
                    numbers.add((double) number);
                }
                System.out.println((long) (double) context.parallelizeDoubles(numbers, 4).sum());
            }
        }
    }
}
