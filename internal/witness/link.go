package witness

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// link is one session of an owner on its way to a member: a stream, a goroutine that writes it and one that reads it.
type link struct {
	r       *Registrar
	member  ID
	session uint64
	cancel  context.CancelFunc
	wake    chan struct{} // one token: look at queue

	mu    sync.Mutex
	queue []Message
}

// linkTo returns the link of a session, begun if it is new. The caller holds r.mu.
func (r *Registrar) linkTo(member ID, session uint64) *link {
	if l := r.links[session]; l != nil {
		return l
	}
	ctx, cancel := context.WithCancel(r.ctx)
	l := &link{r: r, member: member, session: session, cancel: cancel, wake: make(chan struct{}, 1)}
	r.links[session] = l
	term := r.term
	r.goOn(func(context.Context) {
		defer cancel()
		err := l.run(ctx, term)
		if ctx.Err() == nil {
			r.log.Warn("witness lost", "component", "witness", "member", member.String(), "error", err)
			r.metrics.sessions.WithLabelValues(endFailed).Inc()
		}
		r.event(term, func(o *Owner, now time.Time) { o.Failed(now, member, session, err) })
	})
	return l
}

// put hands a message over; how many may wait is the owner's matter.
func (l *link) put(m Message) {
	l.mu.Lock()
	l.queue = append(l.queue, m)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) take(empty []Message) []Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.queue
	l.queue = empty
	return out
}

// run drives the stream until it breaks, the member refuses or ctx ends.
func (l *link) run(ctx context.Context, term int) error {
	conn, err := l.r.cfg.Dial(ctx, l.member.Broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // neither a read nor a write looks at a context
	defer stop()
	var reader sync.WaitGroup
	var ended error
	reader.Go(func() {
		defer cancel()
		ended = l.read(conn, term)
	})
	err = l.write(ctx, conn)
	_ = conn.SetReadDeadline(time.Now().Add(lastWord)) // what the member said of it may still come
	reader.Wait()
	if late(ended) {
		return err
	}
	return ended
}

// lastWord is how long the answers of a member to which nothing can be written any more are waited for.
const lastWord = time.Second

// read takes the member's answers until there are no more; its error is never nil.
func (l *link) read(conn net.Conn, term int) error {
	in := readMessages(conn)
	var reply peerpb.FollowReply
	first := true
	for {
		if err := in.next(&reply); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("witness closed the stream")
			}
			return err
		}
		if reply.Refused != peerpb.Refusal_REFUSAL_NONE {
			return errors.Join(refusalError(reply.Refused), errors.New(reply.Why))
		}
		if first {
			first = false
			l.r.metrics.sessions.WithLabelValues(endFollowed).Inc()
		}
		l.r.recorded(term, l.member, l.session, reply.Recorded)
	}
}

// recorded tells the owner, and Offer when the set's progress may have changed.
func (r *Registrar) recorded(term int, member ID, session, n uint64) {
	r.event(term, func(o *Owner, now time.Time) {
		o.Recorded(now, member, session, n)
		if !o.opened {
			r.notify()
		}
	})
}

func (l *link) write(ctx context.Context, conn net.Conn) error {
	out := sender{conn: conn}
	var batch []Message
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		batch = l.take(batch[:0])
		for i := range batch {
			if err := out.add(request(&batch[i])); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		clear(batch)
	}
}

// request encodes a message.
func request(m *Message) *peerpb.FollowRequest {
	switch {
	case m.Hello != nil:
		h := m.Hello
		return &peerpb.FollowRequest{Kind: &peerpb.FollowRequest_Hello{Hello: &peerpb.FollowHello{
			Log: h.Key.Log[:], Epoch: int64(h.Key.Epoch), Owner: int32(h.Owner.Broker), OwnerIncarnation: h.Owner.Incarnation,
			Session: h.Session, Incarnation: h.Member.Incarnation,
		}}}
	case m.Table != nil:
		return &peerpb.FollowRequest{Kind: &peerpb.FollowRequest_Table{Table: &peerpb.FollowTable{
			Generations: generationsPB(m.Table.Generations), Done: m.Table.Done, Next: m.Table.Next,
		}}}
	default:
		return &peerpb.FollowRequest{Kind: &peerpb.FollowRequest_Delta{Delta: &peerpb.FollowDelta{
			Number: m.Delta.Number, Updates: m.Delta.Updates,
		}}}
	}
}
