import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Apache Kafka's command-line tools one after the other in one JVM: a JSON
 * line with class, args and stdin comes in, a line with exit, out and err goes out. Each tool sees
 * standard streams of its own; its exit ends only itself.
 */
public final class ToolHost {
  private static final class Exited extends Error {
    private static final long serialVersionUID = 1L;

    Exited(int code) { super("exit " + code, null, false, false); }
  }

  /** The code of the first call of exit; a tool that catches what that throws may call it again. */
  private static volatile Integer exitCode;

  public static void main(String[] args) throws Exception {
    PrintStream out = System.out;
    PrintStream err = System.err;
    InputStream stdin = System.in;
    Exit.Procedure exit = (code, message) -> {
      if (exitCode == null) exitCode = code;
      throw new Exited(code);
    };
    Exit.setExitProcedure(exit);
    Exit.setHaltProcedure(exit);
    Exit.setShutdownHookAdder((name, hook) -> { }); // they would run when this host ends
    ObjectMapper json = new ObjectMapper();
    BufferedReader in = new BufferedReader(new InputStreamReader(stdin, StandardCharsets.UTF_8));
    out.println("hello\t4.3.0");
    for (String line; (line = in.readLine()) != null; ) {
      JsonNode request = json.readTree(line);
      ByteArrayOutputStream toolOut = new ByteArrayOutputStream();
      ByteArrayOutputStream toolErr = new ByteArrayOutputStream();
      System.setIn(new ByteArrayInputStream(request.path("stdin").asText().getBytes(StandardCharsets.UTF_8)));
      System.setOut(new PrintStream(toolOut, true, "UTF-8"));
      System.setErr(new PrintStream(toolErr, true, "UTF-8"));
      List<String> argv = new ArrayList<>();
      request.path("args").forEach(a -> argv.add(a.asText()));
      exitCode = null;
      try {
        Class.forName(request.path("class").asText()).getMethod("main", String[].class).invoke(null, (Object) argv.toArray(new String[0]));
      } catch (InvocationTargetException e) {
        if (exitCode == null) {
          exitCode = 1;
          e.getCause().printStackTrace();
        }
      } catch (ClassNotFoundException e) {
        exitCode = 127;
        e.printStackTrace();
      }
      System.setOut(err);
      System.setErr(err);
      ObjectNode answer = json.createObjectNode();
      answer.put("exit", exitCode == null ? 0 : exitCode);
      answer.put("out", toolOut.toString("UTF-8"));
      answer.put("err", toolErr.toString("UTF-8"));
      out.println("done\t" + json.writeValueAsString(answer));
      out.flush();
    }
    Runtime.getRuntime().halt(0);
  }
}
