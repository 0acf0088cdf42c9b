// Package goclient runs the conformance cases on Go client libraries and on
// kcat, inside a process of their own. It reads one case a line on standard
// input and answers one line on standard output, as the programs in java/,
// python/ and js/ do; ../README.md describes the lines.
//
// The cases are written once over the small interface Client; each library has
// one file that implements it. It knows nothing of the driver.
package goclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/skeinmq/skein/test/conformance/record"
)

// errNoAPI says that a library has no call for what the case asks; a case that
// ends with it is reported n/a with the reason.
var errNoAPI = errors.New("no such api")

// Client is what a case needs of a library. All calls go to the brokers named
// when it was made.
type Client interface {
	// Admin runs the library's own admin calls; see adminSteps.
	Admin() (adminSteps, error)
	// Produce writes records to their partitions with a codec (none, gzip,
	// snappy, lz4, zstd) and returns when all are acked by all replicas.
	Produce(ctx context.Context, topic, codec string, idempotent bool, recs []record.Record) error
	// Read returns n records of a partition from an offset; offset -2 is the start of the log.
	Read(ctx context.Context, topic string, partition int32, offset int64, n int) ([]record.Record, error)
	// OffsetAt returns the first offset of partition 0 whose timestamp is at least
	// the given one in milliseconds, or -1 if there is none.
	OffsetAt(ctx context.Context, topic string, ms int64) (int64, error)
	// Join makes a group member that starts at the beginning where nothing is committed.
	// It hands out at most max records, if max is not 0.
	Join(ctx context.Context, group, topic string, max int) (Member, error)
	// Committed returns the committed offset of partition 0, asked of the coordinator.
	Committed(ctx context.Context, group, topic string) (int64, error)
	Close()
}

// Member is one member of a consumer group.
type Member interface {
	// Poll lets the member work for a short while and returns the records it got.
	Poll(ctx context.Context) ([]record.Record, error)
	// Assignment returns the partitions the member holds now, sorted.
	Assignment() []int32
	// Commit commits the given next offsets by partition.
	Commit(ctx context.Context, next map[int32]int64) error
	// Close leaves the group.
	Close() error
}

// Params are the facts of one case, as the driver sent them.
type Params map[string]string

func (p Params) num(key string) int64 {
	n, _ := strconv.ParseInt(p[key], 10, 64)
	return n
}

func (p Params) set() record.Set {
	return record.Set{Salt: p["salt"], TimeBase: p.num("timebase"), Loose: p["loose"] == "true"}
}

// Names lists the libraries of this package.
func Names() []string { return []string{"franz-go", "sarama", "sarama-max", "kafka-go", "kcat"} }

// open makes a client. With faults, brokers are killed while it works: it goes on after errors that programs go on after.
func open(name, bootstrap string, faults bool) (Client, error) {
	switch name {
	case "franz-go":
		return newFranz(bootstrap)
	case "sarama":
		return newSarama(bootstrap, sarama.DefaultVersion, faults)
	case "sarama-max":
		return newSarama(bootstrap, sarama.MaxVersion, faults)
	case "kafka-go":
		return newSegmentio(bootstrap), nil
	case "kcat":
		return &kcat{bootstrap: bootstrap, faults: faults}, nil
	}
	return nil, fmt.Errorf("open client: unknown library %q", name)
}

// Serve answers cases for one library until input ends.
func Serve(name string, in io.Reader, out io.Writer) error {
	fmt.Fprintf(out, "hello\t%s\n", version(name))
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		p := Params{}
		for _, field := range strings.Split(lines.Text(), "\t") {
			if k, v, ok := strings.Cut(field, "="); ok {
				p[k] = v
			}
		}
		status, text := "pass", ""
		if err := runCase(name, p); errors.Is(err, errNoAPI) {
			status, text = "n/a", err.Error()
		} else if err != nil {
			status, text = "fail", err.Error()
		}
		fmt.Fprintf(out, "done\t%s\t%s\n", status, strings.NewReplacer("\n", " | ", "\t", " ").Replace(text))
	}
	return lines.Err()
}

func runCase(name string, p Params) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.num("seconds"))*time.Second)
	defer cancel()
	c, err := open(name, p["bootstrap"], p["faults"] == "true")
	if err != nil {
		return err
	}
	defer c.Close()
	switch p["case"] {
	case "admin":
		return adminCase(ctx, c, p)
	case "produce":
		return produceCase(ctx, c, p)
	case "idempotent":
		return produceCase(ctx, c, p)
	case "start":
		return startCase(ctx, c, p)
	case "timestamp":
		return timestampCase(ctx, c, p)
	case "midbatch":
		return midbatchCase(ctx, c, p)
	case "group":
		return groupCase(ctx, c, p)
	case "commit":
		return commitCase(ctx, c, p)
	}
	return fmt.Errorf("run case: unknown case %q", p["case"])
}
