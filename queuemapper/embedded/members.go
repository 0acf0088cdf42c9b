package embedded

import (
	"context"
	"errors"
	"fmt"
	"go.etcd.io/raft/v3/raftpb"
	"net"
	"net/http"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// clientPings is how often a client may ask at most whether the connection lives. gRPC allows one in five minutes, unless it is told.
const clientPings = 5 * time.Second

// bootstrapPatience is how long each other member may take to tell a fresh directory that its name has had another one: etcd starts a
// member anew, with the vote that it has cast already, when nobody says so in time. Its own second is less than a busy machine takes.
const bootstrapPatience = 10 * time.Second

// Peers describes a member of several.
type Peers struct {
	// URL is where other members, and clients, reach this one: http://host:port or https://host:port.
	URL string
	// Members are the URLs of all members, this one included, by name. It is looked at by a fresh directory only.
	Members map[string]string
	// Join makes a fresh directory a member that AddLearner has added to a running cluster.
	Join bool
	// Alone says that there is no other member for now: the clocks are those of a single member.
	Alone bool
	// Cert, Key and CA are PEM files for https.
	Cert, Key, CA string
	// Handle is given what serves the requests of other members at URL, before the member can become ready, and nil at its end.
	Handle func(http.Handler)
}

// Member is one etcd server of the cluster.
type Member struct {
	ID      uint64
	Name    string // "" while one that was added later was never started
	URL     string
	Learner bool
	Started bool // at some time
}

func (p *Peers) apply(sc *config.ServerConfig) error {
	own, err := types.NewURLs([]string{p.URL})
	if err != nil {
		return err
	}
	all := types.URLsMap{}
	for name, u := range p.Members {
		if all[name], err = types.NewURLs([]string{u}); err != nil {
			return err
		}
	}
	all[sc.Name] = own
	sc.PeerURLs, sc.ClientURLs, sc.InitialPeerURLsMap = own, own, all
	sc.NewCluster, sc.BootstrapTimeout = !p.Join, bootstrapPatience
	sc.PeerTLSInfo = transport.TLSInfo{CertFile: p.Cert, KeyFile: p.Key, TrustedCAFile: p.CA, ClientCertAuth: p.Cert != ""}
	if !p.Alone {
		sc.TickMs, sc.ElectionTicks = peerTickMs, peerElectionTicks
	}
	return nil
}

// ServeClients serves other processes' clients on ln until Close, which closes ln.
func (s *Server) ServeClients(ln net.Listener) {
	s.grpc = v3rpc.Server(s.etcd, nil, s.guardCall, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPings, PermitWithoutStream: true}))
	s.serving.Go(func() { _ = s.grpc.Serve(ln) }) // ends when Close stops it
}

// Members lists the members as this one knows them, without asking the others: it works without a quorum.
func (s *Server) Members() []Member {
	var out []Member
	for _, m := range s.etcd.Cluster().Members() {
		out = append(out, member(uint64(m.ID), m.Name, m.PeerURLs, m.IsLearner, len(m.ClientURLs) > 0))
	}
	return sorted(out)
}

// ID is this member's.
func (s *Server) ID() uint64 { return uint64(s.etcd.MemberID()) }

// Removed reports whether the others have removed this member, as far as it has been told.
func (s *Server) Removed() bool { return s.etcd.Cluster().Member(s.etcd.MemberID()) == nil }

// Leader is the id of the member that leads, 0 if there is none as far as this one knows.
func (s *Server) Leader() uint64 { return s.etcd.Lead() }

// Led reports whether this member can answer clients: it has a vote, and there is a leader as far as it knows.
func (s *Server) Led() bool { return s.etcd.Lead() != 0 && !s.etcd.IsLearner() }

// LeaderGone tells this member that the process of a member does not exist any more, or stands still: if it led, or nobody does, this one
// stands for election now instead of when the leader has been silent for long enough. One member should be told. Nothing
// rests on its being true.
func (s *Server) LeaderGone(ctx context.Context, name string) error {
	lead, self := s.etcd.Lead(), s.ID()
	if m := s.etcd.Cluster().Member(types.ID(lead)); lead == self || m != nil && m.Name != name {
		return nil
	}
	return s.etcd.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &lead, To: &self})
}

func member(id uint64, name string, urls []string, learner, started bool) Member {
	m := Member{ID: id, Name: name, Learner: learner, Started: started}
	if len(urls) > 0 {
		m.URL = urls[0]
	}
	return m
}

func sorted(list []Member) []Member {
	slices.SortFunc(list, func(a, b Member) int {
		switch {
		case a.URL < b.URL:
			return -1
		case a.URL > b.URL:
			return 1
		}
		return 0
	})
	return list
}

// List asks the cluster for its members. While it has no leader, List waits until ctx ends, as whatever changes them does.
func List(ctx context.Context, c *clientv3.Client) ([]Member, error) {
	var resp *clientv3.MemberListResponse
	err := again(ctx, func(ctx context.Context) (err error) {
		resp, err = c.MemberList(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list etcd members: %w", err)
	}
	var out []Member
	for _, m := range resp.Members {
		out = append(out, member(m.ID, m.Name, m.PeerURLs, m.IsLearner, len(m.ClientURLs) > 0))
	}
	return sorted(out), nil
}

// AddLearner adds a member that is to be started with Join; it has no vote until it is promoted. That it is there
// already is no error. It returns all members. The cluster wants to have been whole for five seconds first: AddLearner waits for that until ctx ends.
func AddLearner(ctx context.Context, c *clientv3.Client, url string) ([]Member, error) {
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.MemberAddAsLearner(ctx, []string{url})
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrPeerURLExist) && !errors.Is(err, rpctypes.ErrMemberExist) {
		return nil, fmt.Errorf("add etcd member %s: %w", url, err)
	}
	return List(ctx, c)
}

// Promote gives a learner its vote, once it has caught up: it waits for that until ctx ends.
func Promote(ctx context.Context, c *clientv3.Client, id uint64) error {
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.MemberPromote(ctx, id)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrMemberNotLearner) {
		return fmt.Errorf("promote etcd member %x: %w", id, err)
	}
	return nil
}

// changePatience is how long a change of the members may take. etcd drops one that meets an election, or another change, and then
// never answers. All changes here may be made twice.
const changePatience = 5 * time.Second

// again tries until there is an answer that does not pass, or ctx ends.
func again(ctx context.Context, try func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, changePatience)
		err := try(once)
		dropped := err != nil && once.Err() != nil
		cancel()
		if !dropped && !passes(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// passes says whether an error is over in a while: there is no leader, another one than before, too few members or no way
// to them (all are UNAVAILABLE), or a learner has not caught up yet.
func passes(err error) bool {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code() == codes.Unavailable || e == rpctypes.ErrMemberLearnerNotReady
	}
	return status.Code(err) == codes.Unavailable
}

// Remove takes a member away; its server stops by itself. That it is gone already is no error. While that would
// endanger the quorum it waits, as AddLearner does.
func Remove(ctx context.Context, c *clientv3.Client, id uint64) error {
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.MemberRemove(ctx, id)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return fmt.Errorf("remove etcd member %x: %w", id, err)
	}
	return nil
}

// Update tells the cluster where a member is now. ErrStopped: the member was asked itself, and runs no more.
func Update(ctx context.Context, c *clientv3.Client, id uint64, url string) error {
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.MemberUpdate(ctx, id, []string{url})
		if errors.Is(err, rpctypes.ErrStopped) {
			return ErrStopped
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("update etcd member %x: %w", id, err)
	}
	return nil
}

// Names makes Peers.Members of a list; the member that has the URL own gets the name self.
func Names(list []Member, self, own string) map[string]string {
	out := make(map[string]string)
	for _, m := range list {
		switch {
		case m.URL == own:
			out[self] = own
		case m.Name != "":
			out[m.Name] = m.URL
		default: // added and not started: any name does, it is matched by its URL
			out[fmt.Sprintf("unstarted-%x", m.ID)] = m.URL
		}
	}
	return out
}
