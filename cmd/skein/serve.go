package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/kconfig"
)

func serveCommand() *cobra.Command {
	var file string
	var sets []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Runs a broker. Without flags it is a complete one-broker cluster on loopback: embedded etcd, one
raft voter and one log in ./skein-data. It prints one line that begins with "ready" when it serves.

Each directory of --data holds one log; the first also holds etcd and raft. Settings come from
flags, then the environment (SKEIN_NODE_ID, SKEIN_NUM_PARTITIONS, …), then --config, a YAML file of
flag names and Kafka broker configs, flat: "num.partitions: 3", or a Kafka broker's server.properties.
What Kubernetes sets for a Service named skein (SKEIN_SERVICE_HOST, SKEIN_PORT, …) is no setting.

SIGTERM and SIGINT stop it in order: no new work, what is in flight is committed, exit 0. A second
signal ends it at once, which is safe, as is kill -9.`,
		Example: "  skein serve\n  skein serve --data /disk1,/disk2 --listen 127.0.0.1:9092 --set num.partitions=6\n  skein serve --config skein.yaml",
	}
	for _, o := range options {
		cmd.Flags().String(o.name, o.value, o.usage)
	}
	cmd.Flags().StringVar(&file, "config", os.Getenv("SKEIN_CONFIG"), "file of settings: YAML, or a .properties file of Kafka's")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "a setting or Kafka broker config NAME=VALUE, repeatable")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log what is not a problem, too")
	// check reads the settings; first is what is wrong with the command line itself.
	check := func(cmd *cobra.Command, first error) (settings, error) {
		s, err := loadSettings(cmd.Flags(), os.Environ(), file, sets, kconfig.Validate)
		if err = errors.Join(first, err); err != nil {
			return s, usageError{errors.Join(err, tryPlace(s))}
		}
		return s, nil
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		_, err = check(cmd, allFlagProblems(cmd, err))
		return err
	})
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := noArgs(cmd, args)
		if err != nil {
			_, err = check(cmd, err)
		}
		return err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := check(cmd, nil)
		if err != nil {
			return err
		}
		level := slog.LevelWarn
		if verbose {
			level = slog.LevelInfo
		}
		logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
		return serve(cmd.Context(), s, logger, cmd.OutOrStdout())
	}
	return cmd
}

// serve runs a node, and another one when its etcd member was taken away: it is a voter no more, and goes on without.
func serve(ctx context.Context, s settings, logger *slog.Logger, out io.Writer) error {
	for {
		claim, err := claimPlace(s)
		if err != nil {
			return usageError{err}
		}
		n := &node{settings: s, claim: claim, logger: logger, out: out}
		err = n.run(ctx)
		if err != nil {
			err = errors.Join(err, n.takeBack())
		}
		if errors.Is(err, errMemberRemoved) && ctx.Err() == nil {
			logger.Warn("this broker votes no more; it goes on without an etcd member", "broker", s.nodeID)
			if err = n.forgetMember(); err == nil {
				claim.release()
				continue
			}
		}
		claim.release()
		return err
	}
}

// takeBack removes directories that this process made for a broker which never was: alone, and with an etcd of its
// operator's that did not answer. Nobody else can know of what is in them; with other brokers that may be different.
func (n *node) takeBack() error {
	select {
	case <-n.mapOpen:
		return nil
	default:
	}
	if !n.external || n.net != nil {
		return nil
	}
	var problems []error
	for _, d := range n.claim.made {
		problems = append(problems, os.RemoveAll(d))
	}
	return errors.Join(problems...)
}

// claim is what a broker holds before it touches anything: its ports and its directories.
type claim struct {
	kafka, http net.Listener
	internal    net.Listener // nil: no other brokers
	node        *nodeFile    // of the first directory; nil: it is fresh, or of a build that wrote none
	unlock      func()
	identities  []*commitlog.Identity // by data directory; nil: a fresh one
	made        []string              // data directories that were not there before
}

// cluster is the id of the cluster that the directories belong to, "" if all are fresh.
func (c *claim) cluster() string {
	for _, id := range c.identities {
		if id != nil {
			return id.ClusterID
		}
	}
	return ""
}

func (c *claim) release() {
	for _, l := range []net.Listener{c.kafka, c.http, c.internal} {
		if l != nil {
			l.Close()
		}
	}
	if c.unlock != nil {
		c.unlock()
	}
}

// claimPlace takes ports and directories, or names everything that stands in the way and leaves
// it as it was.
func claimPlace(s settings) (*claim, error) { return takePlace(s, false) }

// tryPlace names what stands in the way of settings that have problems of their own, so that all is told at once.
// What could not be read is not looked at.
func tryPlace(s settings) error {
	seen := map[string]bool{}
	s.data = slices.DeleteFunc(slices.Clone(s.data), func(d string) bool { // two that are one are told already
		real, err := filepath.EvalSymlinks(d)
		again := err == nil && seen[real]
		seen[real] = true
		return again
	})
	if s.http == s.listen { // that is told already; the second would find the first
		s.http = ""
	}
	c, err := takePlace(s, true)
	if err == nil {
		c.release()
	}
	return err
}

// takePlace does the work of both; dry makes nothing. An empty address is not looked at.
func takePlace(s settings, dry bool) (*claim, error) {
	c := &claim{}
	var problems []error
	listen := func(what, addr string) net.Listener {
		if addr == "" {
			return nil
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
			return nil
		}
		return l
	}
	c.kafka, c.http = listen("listen", s.listen), listen("http", s.http)
	var err error
	known := ""
	for _, d := range s.data[:min(len(s.data), 1)] { // none if they could not be read
		if c.node, err = readNodeFile(d); err != nil {
			problems = append(problems, fmt.Errorf("data %s: %w", d, err))
		} else if c.node != nil {
			known = c.node.Internal
			if c.node.Node != s.nodeID && !s.wrong["node-id"] {
				problems = append(problems, fmt.Errorf("data %s: it is broker %d's, this is broker %d (node-id)", d, c.node.Node, s.nodeID))
			}
		}
	}
	c.internal = listen("internal", s.listenInternal(known))
	if c.identities, err = readIdentities(s.data); err != nil {
		problems = append(problems, err)
	}
	var signed []string // have a lock file
	for _, d := range s.data {
		if _, err := os.Stat(d); errors.Is(err, os.ErrNotExist) {
			c.made = append(c.made, d)
		}
		if _, err := os.Stat(filepath.Join(d, pidName)); err == nil {
			signed = append(signed, d)
		} else if err := mayMake(d); err != nil && !errors.Is(err, syscall.ENOTDIR) { // that is told already
			problems = append(problems, err)
		}
	}
	if dry || len(problems) > 0 { // nothing may be made: only what is there is tried
		err = tryLockDirs(signed)
	} else {
		c.unlock, err = lockDirs(s.data)
	}
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		c.release()
		return nil, errors.Join(problems...)
	}
	return c, nil
}

// readIdentities looks at the directories without writing: each may hold a log; two must not hold the
// same one, nor logs of different clusters.
func readIdentities(dirs []string) ([]*commitlog.Identity, error) {
	out := make([]*commitlog.Identity, len(dirs))
	var problems []error
	logs, cluster, clusterDir := map[string]string{}, "", ""
	for i, d := range dirs {
		id, err := commitlog.ReadIdentity(nil, d)
		if errors.Is(err, os.ErrNotExist) {
			if entries, err := os.ReadDir(d); err == nil && foreign(entries) {
				problems = append(problems, fmt.Errorf("data %s: it holds something else (%s, …) and no log", d, entries[0].Name()))
			}
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("data %s: %w", d, err))
			continue
		}
		out[i] = &id
		if first, ok := logs[id.Log.String()]; ok {
			problems = append(problems, fmt.Errorf("data: %s and %s hold the same log %s: one is a copy", first, d, id.Log))
		}
		logs[id.Log.String()] = d
		if cluster != "" && cluster != id.ClusterID {
			problems = append(problems, fmt.Errorf("data: %s belongs to cluster %s, %s to cluster %s", clusterDir, cluster, d, id.ClusterID))
		}
		cluster, clusterDir = id.ClusterID, d
	}
	if len(out) > 0 && out[0] == nil && len(problems) == 0 {
		for i, id := range out {
			if id != nil {
				problems = append(problems, fmt.Errorf("data: %s holds a log of cluster %s, but the first directory, %s, holds none: "+
					"name first the directory that was first before (it holds the map)", dirs[i], id.ClusterID, dirs[0]))
			}
		}
	}
	return out, errors.Join(problems...)
}

// foreign reports whether a directory without a log holds things that are not a broker's.
func foreign(entries []os.DirEntry) bool {
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "pid", name == "log", name == "meta", name == "etcd", name == "raft", name == "lost+found", strings.HasPrefix(name, "."):
		default:
			return true
		}
	}
	return false
}
