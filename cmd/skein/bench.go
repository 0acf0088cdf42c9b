package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/bench"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure brokers from outside", Args: noArgs}
	cmd.AddCommand(benchCompare(), benchProduce(), benchConsume(), benchFailover(), benchScale(), benchCluster(), benchBare())
	return cmd
}

func benchCompare() *cobra.Command {
	var cfg bench.CompareConfig
	var script, binary, only string
	var out reportFlags
	var alone bool
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Run Apache Kafka and Skein one after the other, same disk, same load",
		Long: `Starts each broker on an empty directory below --dir, loads it, stops it, and prints ratios, broker
CPU seconds per GB and resident memory. Apache Kafka is started by the project's script, which fetches
it on first use. Run it from the project's root.

Two targets are no brokers. "sink" throws away what it is sent: no more can come out of the generator.
"bare" compares the checksums of what it is sent, writes it past the page cache to a file that was
written before, two writes at a time, and acknowledges it then: as much as this machine's disk and
kernel let a durable broker do. How far Skein is from it, and it from Apache Kafka, stands below the bars.`,
		Example: "  skein bench compare --time 10s --report report.json\n  skein bench compare --only one-16k,rate-20",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			if binary == "" {
				binary = self
			}
			cfg.Skein, cfg.Bare = bench.Skein{Binary: binary}, bench.BareServer{Binary: self}
			if !alone {
				if _, err := os.Stat(script); err != nil {
					return usageError{fmt.Errorf("kafka script: %w (run it from the project's root, or give --kafka or --alone)", err)}
				}
				cfg.Kafka = bench.Kafka{Script: script, Port: 19492}
				cfg.Flush = bench.Kafka{Script: script, Port: 19492, Flush: true}
			}
			if only != "" {
				cfg.Only = strings.Split(only, ",")
			}
			cfg.Log, cfg.Options = cmd.ErrOrStderr(), strings.Join(os.Args[1:], " ")
			rep, err := bench.Compare(cmd.Context(), cfg)
			return out.report(cmd, rep, err)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&script, "kafka", "test/peer/kafka", "the script that runs Apache Kafka")
	fl.StringVar(&binary, "skein", "", "the skein binary; default: this one")
	fl.StringVar(&cfg.Dir, "dir", ".", "where all keep their data while measured (up to 40 GB on a fast disk)")
	fl.DurationVar(&cfg.Time, "time", 10*time.Second, "how long each load is measured, once its rate is steady (up to 2 min of warm-up)")
	fl.StringVar(&only, "only", "", "scenarios, separated by commas")
	fl.BoolVar(&cfg.Scale, "scale", true, "also creation, idle memory and restart at 100,000 partitions")
	fl.BoolVar(&alone, "alone", false, "Skein only, and what is no broker")
	out.add(cmd)
	return cmd
}

// loadFlags are what both generators share.
type loadFlags struct {
	addr, prefix       string
	topics, partitions int
	json               bool
}

func (l *loadFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVarP(&l.addr, "bootstrap", "b", "127.0.0.1:9092", "the broker that leads every partition")
	fl.StringVar(&l.prefix, "prefix", "bench", "topics are PREFIX-0, PREFIX-1, …")
	fl.IntVar(&l.topics, "topics", 1, "topics")
	fl.IntVar(&l.partitions, "partitions", 1, "partitions of each topic")
	fl.BoolVar(&l.json, "json", false, "print JSON")
}

func (l *loadFlags) set() (bench.Topics, error) {
	if l.topics < 1 || l.partitions < 1 {
		return bench.Topics{}, usageError{errors.New("topics and partitions must be positive")}
	}
	return bench.Topics{Prefix: l.prefix, Count: l.topics, Partitions: l.partitions}, nil
}

// print prints one result, as JSON or as text.
func (l *loadFlags) print(cmd *cobra.Command, v any, text string) error {
	if l.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

// versus is one load put on a broker twice.
type versus[T any] struct {
	Wire   T       `json:"wire"`
	Client T       `json:"client"`
	Ratio  float64 `json:"ratio"` // of MB/s, wire : client
}

func (v versus[T]) lines(line func(T) string) string {
	return fmt.Sprintf("wire    %s\nclient  %s\nwire : client  %.2f", line(v.Wire), line(v.Client), v.Ratio)
}

func producedLine(p bench.Produced) string {
	line := fmt.Sprintf("%.1f MB/s  %d requests  p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms",
		p.MBps(), p.Requests, p.Latency.P50, p.Latency.P99, p.Latency.P999, p.Latency.Max)
	if p.Refused > 0 {
		line += fmt.Sprintf("  %d refused and sent again", p.Refused)
	}
	return line
}

// benchPatience is for how long a refused request is sent again: longer than moves and failovers take, and what is refused for good still ends.
const benchPatience = 30 * time.Second

func consumedLine(c bench.Consumed) string {
	return fmt.Sprintf("%.1f MB/s  %d bytes in %v", c.MBps(), c.Bytes, c.Elapsed.Round(time.Millisecond))
}

func benchProduce() *cobra.Command {
	var l loadFlags
	load := bench.ProduceLoad{Acks: -1, Patience: benchPatience}
	create, client := false, false
	cmd := &cobra.Command{
		Use:   "produce",
		Short: "Put a load of pre-encoded batches on a broker",
		Long: `Sends batches that were encoded beforehand, so that the generator costs next to nothing. What is
refused as its partition moves is sent again, to the new leader, for up to 30 s; the latency counts
from the first sending, and the result says how many requests that were. The load ends when a
connection to the broker given breaks. What other brokers lead costs the generator more: measure
clusters with skein bench cluster.

With --client the same load is then given to a real client (franz-go with its defaults: idempotent,
acks=all), record by record, and the ratio of the two is printed: what a client's own work costs.`,
		Example: "  skein bench produce --create --topics 10 --partitions 100 --parts 16\n  skein bench produce --rate 20000000 --time 30s\n  skein bench produce --create --client --time 5s",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if load.Topics, err = l.set(); err != nil {
				return err
			}
			if create {
				if err := bench.CreateTopics(cmd.Context(), l.addr, load.Topics); err != nil {
					return err
				}
			}
			p, err := bench.Produce(cmd.Context(), l.addr, load)
			if err != nil {
				return err
			}
			if !client {
				return l.print(cmd, p, producedLine(p))
			}
			c, err := bench.ProduceWithClient(cmd.Context(), l.addr, load)
			if err != nil {
				return err
			}
			both := versus[bench.Produced]{Wire: p, Client: c, Ratio: p.MBps() / c.MBps()}
			return l.print(cmd, both, both.lines(producedLine))
		},
	}
	l.add(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&create, "create", false, "create the topics first")
	fl.BoolVar(&client, "client", false, "then the same with a real client")
	fl.IntVar(&load.RecordBytes, "record-bytes", 1024, "value bytes of a record")
	fl.IntVar(&load.Records, "records", 16, "records in a batch")
	fl.IntVar(&load.Parts, "parts", 1, "batches in a request, each to another partition")
	fl.IntVar(&load.Conns, "conns", 4, "connections")
	fl.IntVar(&load.InFlight, "in-flight", 4, "requests in flight on each connection")
	fl.Int64Var(&load.Rate, "rate", 0, "bytes a second, at even intervals; 0: as fast as answers come")
	fl.DurationVar(&load.Warm, "warm", 2*time.Second, "not measured")
	fl.DurationVar(&load.Time, "time", 10*time.Second, "measured")
	return cmd
}

func benchConsume() *cobra.Command {
	var l loadFlags
	load := bench.ConsumeLoad{PartitionMax: 1 << 20, RequestMax: 50 << 20}
	client := false
	cmd := &cobra.Command{
		Use:   "consume",
		Short: "Read topics from their starts",
		Long: `Reads batches and looks at their headers only. With --client a real client (franz-go) then reads
the same from the starts and decodes every record, and the ratio of the two is printed.`,
		Example: "  skein bench consume --topics 10 --partitions 100 --bytes 1000000000\n  skein bench consume --client --bytes 500000000",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if load.Topics, err = l.set(); err != nil {
				return err
			}
			c, err := bench.Consume(cmd.Context(), l.addr, load)
			if err != nil {
				return err
			}
			if !client {
				return l.print(cmd, c, consumedLine(c))
			}
			real, err := bench.ConsumeWithClient(cmd.Context(), l.addr, load)
			if err != nil {
				return err
			}
			both := versus[bench.Consumed]{Wire: c, Client: real, Ratio: c.MBps() / real.MBps()}
			return l.print(cmd, both, both.lines(consumedLine))
		},
	}
	l.add(cmd)
	fl := cmd.Flags()
	fl.IntVar(&load.Conns, "conns", 4, "connections")
	fl.BoolVar(&client, "client", false, "then the same with a real client")
	fl.IntVar(&load.PerRequest, "per-request", 100, "partitions in one fetch")
	fl.Int64Var(&load.Bytes, "bytes", 0, "end after that many bytes; 0: by time only")
	fl.DurationVar(&load.Time, "time", 10*time.Second, "end after this long")
	return cmd
}
