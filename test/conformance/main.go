// Command conformance runs foreign Kafka clients and Apache Kafka's own tools
// against a broker and prints a table of what works: one line a client, one
// column a case. It installs what it needs under the user's cache folder.
//
// Without --bootstrap it starts `bin/skein serve` on free ports with a data
// directory of its own, and stops it by its process id. README.md describes the
// cases, the clients, and the line protocol between this program and the clients.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/skeinmq/skein/test/conformance/goclient"
)

// options are the flags. The zero value of a string or list means "default" or "all".
type options struct {
	bootstrap string
	kafka     bool
	skein     string
	only      []string
	cases     []string
	json      string
	logs      string
	cache     string
	parallel  int
	brokers   int
	basePort  int
	kill      time.Duration
	timeout   time.Duration
	selftest  bool
	trace     bool
	setup     bool
	workers   string
	list      bool
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "client" {
		if err := goclient.Serve(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, parseFlags())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(code)
}

func parseFlags() options {
	var o options
	var only, cases string
	flag.StringVar(&o.bootstrap, "bootstrap", "", "`HOST:PORT` of a running broker (default: start one)")
	flag.BoolVar(&o.kafka, "kafka", false, "start Apache Kafka instead of Skein")
	flag.StringVar(&o.skein, "skein", "bin/skein", "`FILE` of the broker to start")
	flag.StringVar(&only, "only", "", "comma-separated `CLIENTS`; a name also stands for all that begin with it")
	flag.StringVar(&cases, "cases", "", "comma-separated `CASES`")
	flag.StringVar(&o.json, "json", "", "write results to `FILE`")
	flag.StringVar(&o.logs, "logs", "", "`DIR` for the logs of failed cases (default: logs in the cache)")
	flag.StringVar(&o.cache, "cache", "", "`DIR` for installed clients (default: skein-conformance in the user's cache folder)")
	flag.IntVar(&o.parallel, "parallel", 4, "`CLIENTS` that run at the same time")
	flag.IntVar(&o.brokers, "brokers", 1, "`BROKERS` to start; clients are told the first")
	flag.IntVar(&o.basePort, "base-port", 0, "Kafka `PORT` of the first of several brokers (default: a free one)")
	flag.DurationVar(&o.kill, "kill", 0, "kill -9 one of several brokers every `DURATION` while the cases run, and start it again after half of that")
	flag.DurationVar(&o.timeout, "timeout", 60*time.Second, "longest time of one case")
	flag.BoolVar(&o.selftest, "selftest", false, "plant faults between clients and broker; passes when every aimed case fails")
	flag.BoolVar(&o.trace, "trace", false, "print which requests in which versions each client sends")
	flag.BoolVar(&o.setup, "setup", false, "only install the clients")
	flag.StringVar(&o.workers, "workers", "", "only install what test/cluster drives, and write its commands to `FILE`")
	flag.BoolVar(&o.list, "list", false, "print clients and cases")
	flag.Parse()
	o.only, o.cases = splitList(only), splitList(cases)
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			dir = os.TempDir()
		}
		o.cache = filepath.Join(dir, "skein-conformance")
	}
	if o.logs == "" {
		o.logs = filepath.Join(o.cache, "logs")
	}
	return o
}

func splitList(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(p string) bool { return p == "" })
}

// run returns the exit code: 0 all passed, 1 a case failed, 2 could not run.
func run(ctx context.Context, o options) (int, error) {
	chosen, err := choose(o)
	if err != nil {
		return 2, err
	}
	if o.kill > 0 && (o.brokers < 2 || o.kafka || o.bootstrap != "") {
		return 2, errors.New("--kill needs --brokers 3 of Skein")
	}
	if o.list {
		for _, c := range chosen.clients {
			fmt.Println(c.name, strings.Join(c.cases(), " "))
		}
		return 0, nil
	}
	began := time.Now()
	in := &installer{cache: o.cache}
	if err := in.locate(); err != nil {
		return 2, err
	}
	if o.workers != "" {
		if err := in.writeWorkers(ctx, o.workers); err != nil {
			return 2, err
		}
		return 0, nil
	}
	if o.setup {
		return in.all(ctx, chosen.clients)
	}
	if err := errors.Join(os.RemoveAll(o.logs), os.MkdirAll(o.logs, 0o755)); err != nil {
		return 2, fmt.Errorf("make log folder: %w", err)
	}
	b, err := startBroker(ctx, o, in)
	if err != nil {
		return 2, err
	}
	defer b.stop()
	m, err := newMatrix(ctx, o, b, in, chosen)
	if err != nil {
		return 2, err
	}
	defer m.close()
	if o.selftest {
		return m.selftest(ctx)
	}
	if !o.trace {
		m.run(ctx)
	} else if err := m.runTraced(ctx); err != nil {
		return 2, err
	}
	code, err := report(os.Stdout, o, m.results, b.name, time.Since(began))
	if b.faults != nil {
		n, ferr := b.faults()
		fmt.Printf("%d brokers were killed and came back\n", n)
		if ferr != nil || n == 0 {
			return 2, errors.Join(err, ferr, errors.New("no fault ran to its end"))
		}
	}
	return code, err
}

func report(out *os.File, o options, results []result, broker string, took time.Duration) (int, error) {
	printTable(out, results, broker)
	passed, failed := count(results)
	if o.json != "" {
		data, err := json.MarshalIndent(map[string]any{"broker": broker, "seconds": took.Seconds(), "passed": passed, "failed": failed, "results": results}, "", "  ")
		if err == nil {
			err = os.WriteFile(o.json, append(data, '\n'), 0o644)
		}
		if err != nil {
			return 2, fmt.Errorf("write results: %w", err)
		}
	}
	if failed > 0 {
		fmt.Fprintf(out, "logs of failed cases: %s\n", o.logs)
	}
	fmt.Fprintf(out, "took %.0f s\n%d passed, %d failed\n", took.Seconds(), passed, failed)
	if failed > 0 || passed == 0 {
		return 1, nil
	}
	return 0, nil
}
