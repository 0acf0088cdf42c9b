package embedded

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// An etcd whose database has reached its quota raises an alarm, and refuses every write until somebody has made room and
// disarmed it. Here nobody is there to do that by hand. The database is full of old values long before it is full of the
// map: each member looks at its own, forgets what was replaced, gives the room back, and disarms its alarm. Auto-compaction
// alone does not do: it runs every five minutes, keeps a number of revisions whatever their size, and gives no room back.

const (
	spaceEach = time.Second      // how often a member looks
	spaceRest = 5 * time.Second  // after a try that was of no help
	spaceEase = 10 * time.Minute // the same while there is no alarm: giving room back stops reads for a while
	spaceTime = 30 * time.Second // for one request of a try
	spaceSay  = time.Minute      // how often an operator is told

	spaceOften = 3 // how often room is given back with nothing written meanwhile: another member may have said what is to be forgotten
)

// space makes room in the database of one member. It belongs to one goroutine.
type space struct {
	s     *Server
	tried time.Time // of no help
	said  time.Time
	given int64 // revision up to which the room of old values was given back last
	often int   // how often it was, at that revision
}

// keepSpace runs until ctx ends.
func (s *Server) keepSpace(ctx context.Context) {
	sp := &space{s: s}
	tick := time.NewTicker(spaceEach)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			sp.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look makes room when there is an alarm of this member, or three quarters of the quota are used.
func (sp *space) look(ctx context.Context) {
	alarm, other := sp.alarms()
	if alarm && sp.roomy() {
		sp.disarm(ctx, sp.s.etcd.MemberID())
		return
	}
	if other != 0 && sp.s.etcd.Leader() == sp.s.etcd.MemberID() {
		sp.disarm(ctx, other)
	}
	rest := spaceRest
	if !alarm {
		rest = spaceEase
	}
	if !alarm && sp.s.etcd.Backend().Size() < sp.s.cfg.Quota/4*3 || time.Since(sp.tried) < rest {
		return
	}
	before := sp.s.etcd.Backend().Size()
	err := sp.shrink(ctx)
	after := sp.s.etcd.Backend().Size()
	if before-after < sp.s.cfg.Quota/10 {
		sp.tried = time.Now()
	} else {
		sp.s.cfg.Logger.Info("etcd forgot old values", "bytes_before", before, "bytes", after, "quota", sp.s.cfg.Quota)
	}
	if alarm && sp.roomy() {
		sp.disarm(ctx, sp.s.etcd.MemberID())
		return
	}
	if (alarm || err != nil) && ctx.Err() == nil && time.Since(sp.said) >= spaceSay {
		sp.said = time.Now()
		sp.s.cfg.Logger.Error("etcd is full and takes no changes of the map: delete topics, or restart the voters one by one with a greater --etcd-quota-bytes",
			"bytes", after, "bytes_in_use", sp.s.etcd.Backend().SizeInUse(), "quota", sp.s.cfg.Quota, "error", err)
	}
}

// alarms says whether this member has raised the alarm, and names a member that has and is none any more.
func (sp *space) alarms() (own bool, gone types.ID) {
	for _, a := range sp.s.etcd.Alarms() {
		switch id := types.ID(a.GetMemberID()); {
		case a.GetAlarm() != pb.AlarmType_NOSPACE:
		case id == sp.s.etcd.MemberID():
			own = true
		case !sp.s.etcd.IsMemberExist(id):
			gone = id
		}
	}
	return own, gone
}

// roomy says whether the database is well below its quota. An alarm that was raised for less would be raised again at once.
func (sp *space) roomy() bool { return sp.s.etcd.Backend().Size() < sp.s.cfg.Quota/10*9 }

// shrink forgets every value that was replaced, and gives the room back, if anything has changed since it was done last. A
// watcher that fell behind reads the whole map again.
func (sp *space) shrink(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, spaceTime)
	defer cancel()
	rev := sp.s.etcd.KV().Rev()
	if rev != sp.given {
		sp.given, sp.often = rev, 0
	}
	if sp.often == spaceOften {
		return nil
	}
	_, err := sp.s.etcd.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: true})
	if err == nil || errors.Is(err, mvcc.ErrCompacted) { // which another member asked for; it may still go on here
		sp.often++
		err = sp.s.etcd.Backend().Defrag()
	}
	return err
}

// disarm takes a member's alarm away. If it fails the next look tries again.
func (sp *space) disarm(ctx context.Context, id types.ID) {
	ctx, cancel := context.WithTimeout(ctx, spaceTime)
	defer cancel()
	_, err := sp.s.etcd.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(id), Alarm: pb.AlarmType_NOSPACE})
	if err != nil {
		sp.s.cfg.Logger.Info("disarm etcd's alarm", "member", id.String(), "error", err)
		return
	}
	sp.said = time.Time{}
	sp.s.cfg.Logger.Warn("etcd was full, and has room again", "member", id.String(), "bytes", sp.s.etcd.Backend().Size(), "quota", sp.s.cfg.Quota)
}
