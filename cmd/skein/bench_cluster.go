package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/bench"
)

// clusterBenchFlags are what the benchmarks of clusters share.
type clusterBenchFlags struct {
	script, binary, dir, only, jsonFile, heap string
	port, kafkaPort                           int
	alone, peerAlone                          bool
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
	fl.StringVar(&f.jsonFile, "json", "", "write the report to this file, too")
}

func (f *clusterBenchFlags) skein() (bench.SkeinFleet, error) {
	if f.peerAlone {
		return bench.SkeinFleet{}, nil
	}
	if f.binary != "" {
		return bench.SkeinFleet{Binary: f.binary, Port: f.port}, nil
	}
	self, err := os.Executable()
	return bench.SkeinFleet{Binary: self, Port: f.port}, err
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

// report writes JSON to the file and the table to people.
func (f *clusterBenchFlags) report(cmd *cobra.Command, rep interface{ Print(io.Writer) error }, err error) error {
	if f.jsonFile != "" {
		file, ferr := os.Create(f.jsonFile)
		if ferr != nil {
			return errors.Join(err, ferr)
		}
		err = errors.Join(err, printJSON(file, rep), file.Close())
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
		Example: "  skein bench failover --alone --only kill --kills 10\n  skein bench failover --json failover.json",
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
