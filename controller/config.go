package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/ident"
)

// Config configures a controller. The zero value of an optional field means its default.
type Config struct {
	// Dir holds the raft log and its snapshots; made if it is not there. One process at a
	// time: the caller holds the lock.
	Dir string
	ID  ident.Broker

	// Transport carries raft's messages between brokers (NewTransport). Nil: a single voter for
	// good, which needs neither network nor peers and elects itself.
	Transport raft.Transport
	// Voters are all voters as they were at the cluster's first start, the same list at each of
	// them: a fresh directory of one of them begins with it. Every other broker begins knowing
	// nobody, and becomes a member when the leader is asked to (Join). Afterwards the list
	// counts no more.
	Voters []Member
	// Conns leads to the other brokers; it goes with Transport.
	Conns Conns
	// Timeout is raft's heartbeat and election timeout; default 10 ms without a transport
	// (nobody can be slow but itself), 800 ms with one.
	Timeout time.Duration
	// Lease is how long a leader that does not hear from a majority goes on; default half of Timeout.
	Lease time.Duration
	// CommitInterval is how soon a follower hears at the latest that an entry is committed when no
	// other entry follows it; default 20 ms.
	CommitInterval time.Duration
	// CommandTimeout bounds the attempts of one command: without a leader for so long it answers
	// ErrNotLeader or ErrUnknown. Default 10 s.
	CommandTimeout time.Duration

	// QueueEntries bounds the commands in flight; a full queue blocks Apply. Default 4,096.
	QueueEntries int
	// SnapshotBytes and SnapshotEntries: a snapshot is taken, and the log cut, when more than
	// one of these was applied since the last. Defaults 64 MiB and 65,536.
	SnapshotBytes   int64
	SnapshotEntries uint64
	// TrailingEntries stay in the log behind a snapshot, for voters that lag. Default 128.
	TrailingEntries uint64
	// StuckTimeout: a write of the raft log that takes longer poisons it. Default 5 s.
	StuckTimeout time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Validate reports every problem of cfg in one error.
func (cfg Config) Validate() error {
	var problems []error
	if cfg.Dir == "" {
		problems = append(problems, errors.New("controller directory is empty"))
	}
	if cfg.Timeout != 0 && cfg.Timeout < 5*time.Millisecond {
		problems = append(problems, fmt.Errorf("controller timeout %v is below 5ms", cfg.Timeout))
	}
	if cfg.QueueEntries < 0 || cfg.SnapshotBytes < 0 || cfg.StuckTimeout < 0 {
		problems = append(problems, errors.New("controller limits must not be negative"))
	}
	if cfg.Transport == nil && len(cfg.Voters) > 0 {
		problems = append(problems, errors.New("controller voters need a transport"))
	}
	if (cfg.Transport == nil) != (cfg.Conns == nil) {
		problems = append(problems, errors.New("controller transport and connections go together"))
	}
	if cfg.Lease < 0 || cfg.Lease > cfg.withDefaults().Timeout {
		problems = append(problems, fmt.Errorf("controller lease %v is longer than its timeout", cfg.Lease))
	}
	if n := len(cfg.Voters); n > 0 && n%2 == 0 {
		problems = append(problems, fmt.Errorf("%d controller voters: as many may fail as of one fewer, take an odd number", n))
	}
	return errors.Join(problems...)
}

func (cfg Config) withDefaults() Config {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Millisecond
		if cfg.Transport != nil {
			cfg.Timeout = 800 * time.Millisecond // a dead leader does not wait for it: LeaderGone
		}
	}
	if cfg.Lease == 0 {
		cfg.Lease = cfg.Timeout
		if cfg.Transport != nil {
			cfg.Lease = cfg.Timeout / 2
		}
	}
	if cfg.CommitInterval == 0 {
		cfg.CommitInterval = 20 * time.Millisecond
	}
	if cfg.CommandTimeout == 0 {
		cfg.CommandTimeout = 10 * time.Second
	}
	if cfg.QueueEntries == 0 {
		cfg.QueueEntries = 4096
	}
	if cfg.SnapshotBytes == 0 {
		cfg.SnapshotBytes = 64 << 20
	}
	if cfg.SnapshotEntries == 0 {
		cfg.SnapshotEntries = 64 << 10
	}
	if cfg.TrailingEntries == 0 {
		cfg.TrailingEntries = 128
	}
	if cfg.StuckTimeout == 0 {
		cfg.StuckTimeout = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) raft() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = serverID(cfg.ID)
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = cfg.Timeout, cfg.Timeout, cfg.Lease
	rc.CommitTimeout = min(cfg.CommitInterval, cfg.Timeout)
	// A lone voter has nobody to ask first; and the timer of an election that begins with
	// asking runs while the vote is being synced, which a slow disk would never win.
	rc.PreVoteDisabled = cfg.Transport == nil
	rc.BatchApplyCh = true
	rc.MaxAppendEntries = 256
	rc.SnapshotThreshold = cfg.SnapshotEntries
	rc.TrailingLogs = cfg.TrailingEntries
	rc.Logger = newLogger(cfg.Logger)
	return rc
}

func serverID(id ident.Broker) raft.ServerID { return raft.ServerID(fmt.Sprintf("broker-%d", id)) }

// brokerOf is serverID backwards; false: no id of ours.
func brokerOf(id raft.ServerID) (ident.Broker, bool) {
	digits, ours := strings.CutPrefix(string(id), "broker-")
	n, err := strconv.ParseInt(digits, 10, 32)
	return ident.Broker(n), ours && err == nil
}
