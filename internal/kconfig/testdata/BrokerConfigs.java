import java.util.TreeMap;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.server.config.DynamicBrokerConfig;

/** Writes kafka43-broker.tsv: java -cp 'JARS/*' BrokerConfigs.java > kafka43-broker.tsv */
public class BrokerConfigs {
    public static void main(String[] args) {
        var modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        for (var k : new TreeMap<>(AbstractKafkaConfig.CONFIG_DEF.configKeys()).values()) {
            String def = !k.hasDefault() ? "<none>" : k.defaultValue == null ? "<null>" : ConfigDef.convertToString(k.defaultValue, k.type);
            String valid = k.validator == null ? "" : k.validator.toString().replaceAll("\\s+", " ");
            System.out.println(String.join("\t", k.name, k.type.toString(), def, modes.getOrDefault(k.name, "read-only"),
                k.internalConfig ? "internal" : "public", valid));
        }
    }
}
