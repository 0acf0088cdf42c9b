package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

func logCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "Look at a log's files while no broker serves them", Args: noArgs}
	cmd.AddCommand(logInspect(), logVerify())
	return cmd
}

// queueView is one physical queue as `skein log inspect` shows it.
type queueView struct {
	Topic     string `json:"topicId"`
	Partition int32  `json:"partition"`
	Group     int32  `json:"group"`
	Epoch     int32  `json:"epoch"`
	Frame     string `json:"frame"`
	State     string `json:"state"`
	Start     int64  `json:"start"`
	LogStart  int64  `json:"logStart"`
	End       int64  `json:"end"`
	Batches   int    `json:"batches"`
	Bytes     int64  `json:"bytes"`
	Producers int    `json:"producers"`
}

func viewQueue(q commitlog.InspectedQueue) queueView {
	v := queueView{
		Topic: topicID(q.Partition.Topic), Partition: q.Partition.Index, Group: int32(q.Generation.Group), Epoch: int32(q.Generation.Epoch),
		Frame: q.Generation.Frame.String(), State: "open", Start: int64(q.Start), LogStart: int64(q.LogStart), End: int64(q.End),
		Batches: q.Batches, Bytes: q.Bytes, Producers: q.Producers,
	}
	if q.Sealed {
		v.State = "sealed"
	}
	return v
}

// fileView is one file of a log as `skein log inspect` shows it.
type fileView struct {
	Name    string         `json:"name"`
	First   ident.Position `json:"first"`
	End     ident.Position `json:"end"`
	Sorted  bool           `json:"sorted"`
	Size    int64          `json:"size"`
	Blocks  int            `json:"blocks"`
	Batches int            `json:"batches"`
	Bytes   int64          `json:"bytes"`
	Indexed bool           `json:"indexed"`
}

// damageView is a range of a log that is not as it was written.
type damageView struct {
	File   string         `json:"file"`
	From   ident.Position `json:"from"`
	To     ident.Position `json:"to"`
	Reason string         `json:"reason"`
}

func viewDamage(list []commitlog.CorruptError) []damageView {
	out := []damageView{}
	for _, d := range list {
		out = append(out, damageView{d.File, d.From, d.To, d.Reason})
	}
	return out
}

// inspectView is what `skein log inspect` prints of a log.
type inspectView struct {
	Log     string         `json:"log"`
	Cluster string         `json:"cluster"`
	Epoch   ident.LogEpoch `json:"epoch"`
	End     ident.Position `json:"end"`
	Files   []fileView     `json:"files"`
	Queues  []queueView    `json:"queues"`
	Damage  []damageView   `json:"damage"`
}

func viewInspection(in *commitlog.Inspection) inspectView {
	v := inspectView{
		Log: in.Identity.Log.String(), Cluster: in.Identity.ClusterID, Epoch: in.Epoch, End: in.End,
		Files: []fileView{}, Queues: []queueView{}, Damage: viewDamage(in.Damage),
	}
	for _, f := range in.Files {
		v.Files = append(v.Files, fileView(f))
	}
	for _, q := range in.Queues {
		v.Queues = append(v.Queues, viewQueue(q))
	}
	return v
}

// verifyView is what `skein log verify` prints of a log.
type verifyView struct {
	Files    int          `json:"files"`
	Blocks   int          `json:"blocks"`
	Batches  int          `json:"batches"`
	Bytes    int64        `json:"bytes"` // read
	Problems []damageView `json:"problems"`
}

func logInspect() *cobra.Command {
	var asJSON, queues bool
	cmd := &cobra.Command{
		Use:     "inspect DIR",
		Short:   "Show the files, blocks and physical queues of a log; nothing is written",
		Example: "  skein log inspect ./skein-data\n  skein log inspect ./skein-data --queues --json",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			release, err := offline(args[0])
			if err != nil {
				return err
			}
			defer release()
			in, err := commitlog.Inspect(cmd.Context(), nil, args[0], progressTo(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			v, w := viewInspection(in), cmd.OutOrStdout()
			if asJSON {
				return printJSON(w, v)
			}
			fmt.Fprintf(w, "log %s  cluster %s  epoch %d  end %d  %d queues\n", in.Identity.Log, in.Identity.ClusterID, in.Epoch, in.End, len(in.Queues))
			t := newTable(w, "FILE", "POSITIONS", "BLOCKS", "BATCHES", "DATA", "INDEX")
			for _, f := range in.Files {
				t.row(f.Name, fmt.Sprintf("%d..%d", f.First, f.End), f.Blocks, f.Batches, humanBytes(f.Bytes), f.Indexed)
			}
			if err := t.flush(); err != nil {
				return err
			}
			printDamage(w, in.Damage)
			if !queues {
				return nil
			}
			return printQueues(w, v.Queues)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&queues, "queues", false, "show every physical queue")
	return cmd
}

func printQueues(w io.Writer, views []queueView) error {
	t := newTable(w, "TOPIC ID", "PARTITION", "GROUP", "EPOCH", "FRAME", "STATE", "OFFSETS", "LOG START", "BATCHES", "DATA")
	for _, v := range views {
		t.row(v.Topic, v.Partition, v.Group, v.Epoch, v.Frame, v.State, fmt.Sprintf("%d..%d", v.Start, v.End), v.LogStart, v.Batches, humanBytes(v.Bytes))
	}
	return t.flush()
}

func printDamage(w io.Writer, list []commitlog.CorruptError) {
	for _, d := range list {
		fmt.Fprintf(w, "damaged: %s, positions %d..%d: %s\n", d.File, d.From, d.To, d.Reason)
	}
}

func logVerify() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check every checksum of a log; nothing is written",
		Long: `Reads every byte: checksums of blocks, frames and record batches, the chain of blocks, index files and that
each of their entries points at its batch, and checkpoints. Exit code 1 when something is damaged.

Which sealed generations are needed still the map knows, not the log: files that are gone whole, with nothing in them but such
generations, are no damage here. A broker that starts on the directory compares it with the map and tells what is lost.`,
		Example: "  skein log verify ./skein-data",
		Args:    wantArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			release, err := offline(args[0])
			if err != nil {
				return err
			}
			defer release()
			v, err := commitlog.Verify(cmd.Context(), nil, args[0], progressTo(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), verifyView{v.Files, v.Blocks, v.Batches, v.Bytes, viewDamage(v.Problems)})
			} else {
				printDamage(cmd.OutOrStdout(), v.Problems)
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d files, %d blocks, %d batches, %s read, %d problems\n",
					v.Files, v.Blocks, v.Batches, humanBytes(v.Bytes), len(v.Problems))
			}
			if err == nil && len(v.Problems) > 0 {
				err = fmt.Errorf("%s: %d damaged ranges", args[0], len(v.Problems))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// offline makes sure that no broker serves the directory while it is looked at.
func offline(dir string) (release func(), err error) {
	if _, err := commitlog.ReadIdentity(nil, dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usageError{fmt.Errorf("data %s: no log there", dir)}
		}
		return nil, err
	}
	unlock, err := lockDirs([]string{dir})
	if err != nil {
		return nil, usageError{err}
	}
	return unlock, nil
}

// progressTo shows how far a long reading is, once a second, on a terminal.
func progressTo(w io.Writer) func(done, total int64) {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return nil
	}
	last := time.Now()
	return func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= time.Second && total > 0 {
			last = now
			fmt.Fprintf(f, "\r%s of %s (%d %%) ", humanBytes(done), humanBytes(total), 100*done/total)
		}
	}
}

// isTerminal asks for a window size, which only terminals have.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// topicID renders a topic id as Kafka's tools do.
func topicID[T ~[16]byte](id T) string {
	b := [16]byte(id)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
