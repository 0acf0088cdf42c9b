package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/bench"
)

// clusterBenchFlags are what the benchmarks of clusters share.
type clusterBenchFlags struct {
	script, binary, dir, only, heap, said string
	port, kafkaPort                       int
	alone, peerAlone                      bool
	reportFlags
}

func (f *clusterBenchFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.script, "kafka", "test/peer/kafka", "the script that runs Apache Kafka")
	fl.StringVar(&f.heap, "kafka-heap", "-Xms1G -Xmx1G", "JVM flags of each of Kafka's brokers")
	fl.StringVar(&f.binary, "skein", "", "the skein binary; default: this one")
	fl.StringVar(&f.dir, "dir", ".", "where both keep their data while measured")
	fl.IntVar(&f.port, "port", 19700, "first port of Skein's brokers: ten for each")
	fl.IntVar(&f.kafkaPort, "kafka-port", 19800, "first port of Kafka's brokers: ten for each")
	fl.StringVar(&f.only, "only", "", "scenarios, separated by commas")
	fl.BoolVar(&f.alone, "alone", false, "Skein only")
	fl.BoolVar(&f.peerAlone, "kafka-alone", false, "Kafka only")
	fl.StringVar(&f.said, "said", "", "a directory for what Skein's brokers say, verbosely: ID.log")
	f.reportFlags.add(cmd)
}

func (f *clusterBenchFlags) skein() (bench.SkeinFleet, error) {
	if f.peerAlone {
		return bench.SkeinFleet{}, nil
	}
	if f.binary != "" {
		return bench.SkeinFleet{Binary: f.binary, Port: f.port, Said: f.said}, nil
	}
	self, err := os.Executable()
	return bench.SkeinFleet{Binary: self, Port: f.port, Said: f.said}, err
}

// peer is Kafka, or nil.
func (f *clusterBenchFlags) peer() (bench.FleetKind, error) {
	if f.alone {
		return nil, nil
	}
	if _, err := os.Stat(f.script); err != nil {
		return nil, usageError{fmt.Errorf("kafka script: %w (run it from the project's root, or give --kafka or --alone)", err)}
	}
	return bench.KafkaFleet{Script: f.script, Port: f.kafkaPort, Heap: f.heap}, nil
}

func (f *clusterBenchFlags) scenarios() []string {
	if f.only == "" {
		return nil
	}
	return strings.Split(f.only, ",")
}

// reportFlags say where the report of a benchmark goes.
type reportFlags struct {
	file string
	json bool
}

func (f *reportFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "report", "", "write the report to this file as JSON, too")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// report writes JSON to the file, and to people what they asked for.
func (f *reportFlags) report(cmd *cobra.Command, rep interface{ Print(io.Writer) error }, err error) error {
	if f.file != "" {
		file, ferr := os.Create(f.file)
		if ferr != nil {
			return errors.Join(err, ferr)
		}
		err = errors.Join(err, printJSON(file, rep), file.Close())
	}
	if f.json {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), rep))
	}
	return errors.Join(err, rep.Print(cmd.OutOrStdout()))
}

func benchFailover() *cobra.Command {
	var f clusterBenchFlags
	var cfg bench.FailoverConfig
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill, stop, pause and restart brokers of three, and measure what clients notice",
		Long: `Starts three brokers, breaks them and measures from outside: how long until a client has written to every partition, how
long a consumer that had read everything gets nothing, how late the latest acknowledgement of a steady producer is. Apache
Kafka with replication factor 3 and min.insync.replicas=2 is treated the same in the same run.`,
		Example: "  skein bench failover --alone --only kill --kills 10\n  skein bench failover --report failover.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Skein, err = f.skein(); err != nil {
				return err
			}
			if cfg.Kafka, err = f.peer(); err != nil {
				return err
			}
			cfg.Dir, cfg.Only, cfg.Log, cfg.Options = f.dir, f.scenarios(), cmd.ErrOrStderr(), strings.Join(os.Args[1:], " ")
			rep, err := bench.Failover(cmd.Context(), cfg)
			return f.report(cmd, rep, err)
		},
	}
	f.add(cmd)
	fl := cmd.Flags()
	fl.IntVar(&cfg.Partitions, "partitions", 10_000, "partitions that are written after each kill (below 1,000 or a multiple of it)")
	fl.IntVar(&cfg.Many, "many", 100_000, "partitions of the scenario kill-many; 0 leaves it out")
	fl.IntVar(&cfg.KafkaPartitions, "kafka-partitions", 100, "the same for Kafka, which is busy for minutes with thousands of replicas")
	fl.IntVar(&cfg.Kills, "kills", 5, "faults in each scenario")
	return cmd
}

func benchScale() *cobra.Command {
	var f clusterBenchFlags
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Add a fourth broker to three under load, then drain one",
		Long: `Starts three brokers with 1,000 partitions under a steady load, adds a fourth one, and measures how long until each
leads within 10 % of a quarter of the partitions and how many bytes brokers sent each other for it; then it drains the first one.`,
		Example: "  skein bench scale --report scale.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kind, err := f.skein()
			if err != nil {
				return err
			}
			rep, err := bench.Growth(cmd.Context(), bench.GrowthConfig{Skein: kind, Dir: f.dir, Log: cmd.ErrOrStderr(), Options: strings.Join(os.Args[1:], " ")})
			return f.report(cmd, rep, err)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.binary, "skein", "", "the skein binary; default: this one")
	fl.StringVar(&f.dir, "dir", ".", "where the brokers keep their data while measured")
	fl.IntVar(&f.port, "port", 19700, "first port of the brokers: ten for each")
	f.reportFlags.add(cmd)
	return cmd
}

func benchCluster() *cobra.Command {
	var f clusterBenchFlags
	var cfg bench.ClusterConfig
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Put the same load on three brokers of Apache Kafka and of Skein",
		Long: `Starts three brokers of each, one kind after the other, on the same disk: Apache Kafka with replication factor 3 and
min.insync.replicas=2. Bytes between brokers are those that the kernel counts as acknowledged on every connection to a port
that only brokers use (ss -ti), disk bytes those that the processes sent to the block layer (/proc/PID/io). What witnesses cost
is the difference of medians of three brokers and of one, five times in turn, and beside it what the owners measured themselves.`,
		Example: "  skein bench cluster --time 10s --report cluster.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Skein, err = f.skein(); err != nil {
				return err
			}
			if cfg.Kafka, err = f.peer(); err != nil {
				return err
			}
			cfg.Dir, cfg.Only, cfg.Log, cfg.Options = f.dir, f.scenarios(), cmd.ErrOrStderr(), strings.Join(os.Args[1:], " ")
			rep, err := bench.Cluster(cmd.Context(), cfg)
			return f.report(cmd, rep, err)
		},
	}
	f.add(cmd)
	cmd.Flags().DurationVar(&cfg.Time, "time", 10*time.Second, "how long each load is measured, once its rate is steady (up to 2 min of warm-up)")
	return cmd
}
