package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/process"
)

// Foreign is a client that is not franz-go: a program that is started once for each of its roles and says on standard
// output what it was told, a line of JSON for each operation. test/cluster/README.md describes the lines.
type Foreign struct {
	Name string
	Argv []string
	// Settings are the client's own, beside what each role needs.
	Settings map[string]string
	// Roles are what it does; default: RoleProduce, RoleTail, RoleMember.
	Roles []string
	// Plant has the worker report something that is not so, for tests of the checkers: "data" (the fiftieth ack,
	// and the records at offset 20) or "commit" (the fifth).
	Plant string
}

// ForeignGroup is the consumer group of the foreign clients; each has a member in it.
const ForeignGroup = "load-foreign"

// The roles of a worker.
const (
	RoleProduce = "produce" // idempotent, acks=all, to all partitions
	RoleTail    = "tail"    // reads all partitions from 0 on, and asks for marks
	RoleReader  = "reader"  // the same without asking
	RoleMember  = "member"  // of ForeignGroup: reads and commits
)

// FirstForeign is the id of the first foreign client's producer; the others follow in order.
const FirstForeign = 100

// worker is one process of a foreign client.
type worker struct {
	l    *Load
	name string // client and role
	role string
	id   int32 // of a producer

	mu    sync.Mutex
	fresh map[history.Partition]time.Time // when the newest operation began that was good
	ended bool                            // it said so
	left  int64                           // records that were never answered
	said  []byte                          // the end of what it logged
}

// report is one line of a worker. Moments are microseconds since 1970.
type report struct {
	Op       string
	Called   int64
	Returned int64
	At       row    // produce
	Records  []row  // poll
	Marks    []mark // commit, end, start
	Assigned int    // poll of a member: how often it has been assigned partitions
	Error    string // what the operation failed with
	Spoilt   []mark // poll: records whose bytes have changed
	Left     int64  // bye
}

// row is topic (its place in Topics), partition, offset, producer, seq, sum.
type row [6]uint64

// mark is topic, partition, offset.
type mark [3]int64

// maxSaid bounds what is kept of a worker's log.
const maxSaid = 256 << 10

// Write collects the worker's log.
func (w *worker) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said = append(w.said, b...); len(w.said) > 2*maxSaid {
		w.said = append(w.said[:0], w.said[len(w.said)-maxSaid:]...)
	}
	return len(b), nil
}

// beginForeign starts the workers: a producer ends with the first context, the others with the second.
func (l *Load) beginForeign(producing, observing context.Context) error {
	for i, f := range l.Foreign {
		id := int32(FirstForeign + i)
		l.H.Producer(id, true)
		roles := f.Roles
		if roles == nil {
			roles = []string{RoleProduce, RoleTail, RoleMember}
		}
		for _, role := range roles {
			w := newWorker(l, f.Name+" "+role, role, id)
			ctx, group := observing, &l.observe
			if role == RoleProduce {
				ctx, group = producing, &l.produce
			}
			run, err := w.start(ctx, f)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			l.foreign = append(l.foreign, w)
			group.Go(func() {
				if err := run(); err != nil {
					l.problem(fmt.Errorf("%s: %w\n%s", w.name, err, w.log()))
				}
			})
		}
	}
	return nil
}

func newWorker(l *Load, name, role string, id int32) *worker {
	return &worker{l: l, name: name, role: role, id: id, fresh: make(map[history.Partition]time.Time)}
}

func (w *worker) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.said)
}

// start starts the process; what it returns waits for its end. The end of its standard input asks it to finish.
func (w *worker) start(ctx context.Context, f Foreign) (wait func() error, err error) {
	cmd := exec.Command(f.Argv[0], f.Argv[1:]...)
	cmd.Stderr = w
	cmd.SysProcAttr = process.Tied()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(in, w.order(f)); err != nil {
		cmd.Process.Kill()
		return nil, errors.Join(err, cmd.Wait())
	}
	return func() error {
		finished := make(chan struct{})
		go func() {
			select {
			case <-finished:
				return
			case <-ctx.Done():
				in.Close()
			}
			select {
			case <-finished:
			case <-time.After(w.l.Patience):
				cmd.Process.Kill()
			}
		}()
		err := w.read(out)
		err = errors.Join(err, cmd.Wait())
		close(finished)
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.ended {
			err = errors.Join(err, fmt.Errorf("it did not say how it ended (patience %v)", w.l.Patience))
		}
		if w.left > 0 {
			err = errors.Join(err, fmt.Errorf("%d records were never answered", w.left))
		}
		return err
	}, nil
}

// order is the line that tells a worker what to do.
func (w *worker) order(f Foreign) string {
	var topics []string
	for _, t := range w.l.Topics {
		topics = append(topics, fmt.Sprintf("%s:%d", t.Name, t.Partitions))
	}
	fields := []string{
		"role=" + w.role, "bootstrap=" + strings.Join(w.l.Seeds, ","), "topics=" + strings.Join(topics, ","), "group=" + ForeignGroup,
		fmt.Sprintf("producer=%d", w.id), fmt.Sprintf("seconds=%d", int(w.l.Patience.Seconds()*0.8)), "plant=" + f.Plant,
	}
	for _, k := range slices.Sorted(maps.Keys(f.Settings)) {
		fields = append(fields, "set."+k+"="+f.Settings[k])
	}
	return strings.Join(fields, "\t") + "\n"
}

// read takes the worker's lines until its output ends.
func (w *worker) read(out io.Reader) error {
	lines := bufio.NewReaderSize(out, 1<<16)
	var bad error
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case len(line) > 0 && line[0] != '{': // what a runtime says by itself
			w.Write(line)
		case len(line) > 0 && bad == nil:
			if err := w.note(line); err != nil {
				bad = fmt.Errorf("line %.200q: %w", line, err)
				fmt.Fprintf(w, "nothing of it is noted any more: %v\n", bad) // but all is read: it must not block
			}
		}
		if err != nil {
			return bad
		}
	}
}

// note hands one line to the history.
func (w *worker) note(line []byte) error {
	var r report
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return err
	}
	switch r.Op {
	case "produce":
		return w.noteProduce(&r)
	case "poll":
		return w.notePoll(&r)
	case "commit", "end", "start":
		return w.noteMarks(&r)
	case "vanished": // offset out of range, or a truncation
		w.l.H.Fail(history.Vanished, history.Partition{}, "%s was told: %s", w.name, r.Error)
	case "trouble":
		w.l.H.Trace(history.Op{Name: "trouble", Client: w.name, Text: r.Error, Called: time.UnixMicro(r.Called)})
	case "bye":
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended, w.left = true, r.Left
	default:
		return errors.New("unknown operation")
	}
	return nil
}

func (w *worker) partition(topic, index int64) (history.Partition, error) {
	if topic < 0 || topic >= int64(len(w.l.Topics)) || index < 0 || index >= int64(w.l.Topics[topic].Partitions) {
		return history.Partition{}, fmt.Errorf("no partition %d of topic %d", index, topic)
	}
	return history.Partition{Topic: w.l.Topics[topic].Name, Index: int32(index)}, nil
}

func (w *worker) record(r row) (history.Partition, history.Record, int64, error) {
	p, err := w.partition(int64(r[0]), int64(r[1]))
	return p, history.Record{Producer: int32(r[3]), Seq: int64(r[4]), Sum: r[5]}, int64(r[2]), err
}

func (w *worker) noteProduce(r *report) error {
	p, rec, offset, err := w.record(r.At)
	if err != nil {
		return err
	}
	h, called := w.l.H, time.UnixMicro(r.Called)
	h.SentTo(p, w.id, rec.Seq+1)
	h.Trace(history.Op{Name: "produce", Client: w.name, Partition: p, Seq: rec.Seq, Value: offset, Text: r.Error, Called: called})
	if r.Error != "" {
		h.Fail(history.Refused, p, "%s: %v: %s", w.name, rec, r.Error)
		return nil
	}
	h.Acked(p, rec, offset)
	w.l.acked.Add(1)
	w.good(p, called)
	return nil
}

func (w *worker) notePoll(r *report) error {
	name, called := w.name, time.UnixMicro(r.Called)
	if w.role == RoleMember {
		name = fmt.Sprintf("%s, assignment %d", w.name, r.Assigned)
	}
	for _, row := range r.Records {
		p, rec, offset, err := w.record(row)
		if err != nil {
			return err
		}
		w.l.H.Saw(name, p, rec, offset)
		if w.role == RoleMember {
			w.l.H.Given(ForeignGroup, p, offset)
		} else {
			w.good(p, called)
		}
		w.l.seen.Add(1)
	}
	for _, m := range r.Spoilt {
		p, err := w.partition(m[0], m[1])
		if err != nil {
			return err
		}
		w.l.H.Fail(history.Changed, p, "%s, at offset %d: %v", w.name, m[2], errSpoilt)
	}
	return nil
}

func (w *worker) noteMarks(r *report) error {
	called := time.UnixMicro(r.Called)
	for _, m := range r.Marks {
		p, err := w.partition(m[0], m[1])
		if err != nil {
			return err
		}
		w.l.H.Trace(history.Op{Name: r.Op, Client: w.name, Partition: p, Value: m[2], Text: r.Error, Called: called})
		switch {
		case r.Error != "": // unknown
		case r.Op == "commit":
			w.l.H.Committed(ForeignGroup, p, m[2])
			w.l.commits.Add(1)
			w.good(p, called)
		case r.Op == "end":
			w.l.H.HighWatermark(w.name, p, 0, m[2])
		default:
			w.l.H.LogStart(w.name, p, 0, m[2])
		}
	}
	return nil
}

// good notes that an operation on the partition that began at the moment was answered well.
func (w *worker) good(p history.Partition, called time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if called.After(w.fresh[p]) {
		w.fresh[p] = called
	}
}

// Behind lists what the foreign clients have not done since the moment: each producer must have an ack, and each consumer
// a record, of every partition, the group a commit.
func (l *Load) Behind(moment time.Time) (out []string) {
	group := make(map[history.Partition]bool)
	for _, w := range l.foreign {
		w.mu.Lock()
		for _, t := range l.Topics {
			for i := range t.Partitions {
				p := history.Partition{Topic: t.Name, Index: i}
				done := !w.fresh[p].Before(moment)
				if w.role == RoleMember {
					group[p] = group[p] || done
				} else if !done {
					out = append(out, fmt.Sprintf("%s: %v", w.name, p))
				}
			}
		}
		w.mu.Unlock()
	}
	for p, done := range group {
		if !done {
			out = append(out, fmt.Sprintf("%s: %v", ForeignGroup, p))
		}
	}
	slices.Sort(out)
	return out
}

// ForeignLogs is what the foreign clients logged, the end of it.
func (l *Load) ForeignLogs() string {
	var b strings.Builder
	for _, w := range l.foreign {
		fmt.Fprintf(&b, "--- %s\n%s", w.name, w.log())
	}
	return b.String()
}
