package witness

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// framed is messages as a stream has them.
func framed(t testing.TB, list ...proto.Message) (b []byte) {
	t.Helper()
	for _, m := range list {
		var err error
		if b, err = appendMessage(b, m); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func helloTo(incarnation int64) *peerpb.FollowRequest {
	return request(&Message{Hello: &Hello{Key: testKey, Owner: ID{1, 1}, Session: 1, Member: ID{2, incarnation}}})
}

func tableFrom(next uint64) *peerpb.FollowRequest {
	return request(&Message{Table: &TablePart{Done: true, Next: next}})
}

func deltaOf(number uint64) *peerpb.FollowRequest {
	return request(&Message{Delta: &Delta{Number: number, Updates: EncodeUpdates(nil)[0]}})
}

func TestMessageGolden(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"00000002" + "0805":                     &peerpb.FollowReply{Recorded: 5},
		"00000006" + "10011a02" + "6e6f":        &peerpb.FollowReply{Refused: peerpb.Refusal_REFUSAL_SEALED, Why: "no"},
		"00000007" + "1a05" + "0807" + "120101": deltaOf(7),
	} {
		if got := hex.EncodeToString(framed(t, m)); got != want {
			t.Errorf("%v is %s, want %s", m, got, want)
		}
	}
	if b, err := appendMessage([]byte("kept"), &peerpb.FollowReply{Why: string(make([]byte, peer.MaxMessageBytes))}); err == nil || string(b) != "kept" {
		t.Errorf("a message that is too long: %d bytes, %v", len(b), err)
	}
}

// TestMessages: short messages come out of one buffer, long ones between them have their own.
func TestMessages(t *testing.T) {
	var list []proto.Message
	for _, n := range []int{0, 1, readBuffer - 100, readBuffer, readBuffer + 1, 1 << 20, 3, peer.MaxMessageBytes - 100, 2} {
		list = append(list, &peerpb.FollowReply{Recorded: uint64(n), Why: string(bytes.Repeat([]byte("x"), n))})
	}
	all := framed(t, list...)
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(all), "in halves": iotest.HalfReader(bytes.NewReader(all))} {
		in := readMessages(r)
		for _, want := range list {
			var got peerpb.FollowReply
			if err := in.next(&got); err != nil || !proto.Equal(&got, want) {
				t.Fatalf("%s: %d bytes came back as %d, %v", name, len(want.(*peerpb.FollowReply).Why), len(got.Why), err)
			}
		}
		if err := in.next(&peerpb.FollowReply{}); !errors.Is(err, io.EOF) {
			t.Errorf("%s: then %v", name, err)
		}
	}
}

func TestMessagesRefuse(t *testing.T) {
	whole := framed(t, &peerpb.FollowReply{Recorded: 5, Why: string(bytes.Repeat([]byte("x"), readBuffer))})
	for _, cut := range []int{1, 3, 4, 5, readBuffer, len(whole) - 1} {
		if err := readMessages(bytes.NewReader(whole[:cut])).next(&peerpb.FollowReply{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	for name, b := range map[string]string{
		"one byte too long":    "\x00\x40\x00\x01",
		"all ones":             "\xff\xff\xff\xff",
		"no protocol buffer":   "\x00\x00\x00\x02\xff\xff",
		"field that is longer": "\x00\x00\x00\x03\x1a\x7fx",
	} {
		in := readMessages(io.MultiReader(bytes.NewReader([]byte(b)), bytes.NewReader(make([]byte, 1<<20))))
		if err := in.next(&peerpb.FollowReply{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if in.long.Cap() != 0 {
			t.Errorf("%s: room for %d bytes was made", name, in.long.Cap())
		}
	}
	in := readMessages(bytes.NewReader([]byte("\x00\x40\x00\x00few")))
	if err := in.next(&peerpb.FollowReply{}); !errors.Is(err, io.ErrUnexpectedEOF) || in.long.Cap() > 4096 {
		t.Errorf("a promise of 4 MiB: %v, room for %d bytes", err, in.long.Cap())
	}
}

// FuzzMessages: what comes does not depend on how it is cut on its way, and errors are of the kinds that callers know.
func FuzzMessages(f *testing.F) {
	f.Add(framed(f, helloTo(1), tableFrom(1), deltaOf(1), deltaOf(2)))
	f.Add([]byte("\x00\x40\x00\x01"))
	f.Add([]byte("\x00\x00\x80\x00x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		one, many := readMessages(bytes.NewReader(b)), readMessages(iotest.OneByteReader(bytes.NewReader(b)))
		for {
			var x, y peerpb.FollowRequest
			promised := one.whole()
			xerr, yerr := one.next(&x), many.next(&y)
			if (xerr == nil) != (yerr == nil) || xerr == nil && !proto.Equal(&x, &y) {
				t.Fatalf("%v, %v against %v, %v", &x, xerr, &y, yerr)
			}
			switch {
			case xerr == nil || errors.Is(xerr, ErrMalformed):
			case !errors.Is(xerr, io.EOF) && !errors.Is(xerr, io.ErrUnexpectedEOF):
				t.Fatal(xerr)
			case promised:
				t.Fatalf("a message was said to be here: %v", xerr)
			}
			if xerr != nil {
				return
			}
		}
	})
}

// follow has a member serve one end of a pipe. done is closed when it is done.
func follow(m *Member) (owner net.Conn, done chan struct{}) {
	owner, far := net.Pipe()
	done = make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		NewServer(m, nil, nil).Follow(far)
	}()
	return owner, done
}

// TestFollowEnds: what a member answers to sessions that go wrong, and what it has then.
func TestFollowEnds(t *testing.T) {
	const none = peerpb.Refusal_REFUSAL_NONE
	delta := framed(t, deltaOf(2))
	for _, x := range []struct {
		name     string
		begin    []proto.Message
		rest     []byte
		recorded uint64
		refused  peerpb.Refusal
	}{
		{"nothing", nil, nil, 0, none},
		{"no hello", []proto.Message{deltaOf(1)}, nil, 0, peerpb.Refusal_REFUSAL_MALFORMED},
		{"hello to another incarnation", []proto.Message{helloTo(7)}, nil, 0, peerpb.Refusal_REFUSAL_INCARNATION},
		{"two hellos", []proto.Message{helloTo(1), helloTo(1)}, nil, 0, peerpb.Refusal_REFUSAL_MALFORMED},
		{"gap", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1), deltaOf(3)}, nil, 1, peerpb.Refusal_REFUSAL_GAP},
		{"length too long", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1)}, []byte("\x00\x40\x00\x01"), 1, peerpb.Refusal_REFUSAL_MALFORMED},
		{"no message", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1)}, []byte("\x00\x00\x00\x01\xff"), 1, peerpb.Refusal_REFUSAL_MALFORMED},
		{"cut in a length", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1)}, delta[:3], 1, none},
		{"cut in a message", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1)}, delta[:len(delta)-1], 1, none},
		{"closed", []proto.Message{helloTo(1), tableFrom(1), deltaOf(1), deltaOf(2)}, nil, 2, none},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := NewMember(MemberConfig{ID: ID{2, 1}})
			owner, done := follow(m)
			go func() { // a pipe has no room: the member's answers are read meanwhile
				_, _ = owner.Write(append(framed(t, x.begin...), x.rest...))
				if x.refused == none {
					owner.Close()
				}
			}()
			list := answers(owner)
			<-done
			var recorded uint64
			refused := none
			for _, a := range list {
				recorded, refused = max(recorded, a.Recorded), a.Refused
			}
			if refused != x.refused || refused != none && recorded != x.recorded {
				t.Errorf("refused for %v with %d recorded, want %v and %d", refused, recorded, x.refused, x.recorded)
			}
			if table := m.tableOf(testKey); table.recorded != x.recorded {
				t.Errorf("%d recorded, want %d", table.recorded, x.recorded)
			}
		})
	}
}

// answers are those that an owner gets, which closes when there are no more.
func answers(c net.Conn) (list []*peerpb.FollowReply) {
	defer c.Close()
	for in := readMessages(c); ; {
		m := &peerpb.FollowReply{}
		if in.next(m) != nil {
			return list
		}
		if list = append(list, m); m.Refused != peerpb.Refusal_REFUSAL_NONE {
			return list
		}
	}
}

// TestAnswersMerge: messages that came at once have one answer, which is about the last of them.
func TestAnswersMerge(t *testing.T) {
	owner, done := follow(NewMember(MemberConfig{ID: ID{2, 1}}))
	if _, err := owner.Write(framed(t, helloTo(1), tableFrom(1), deltaOf(1), deltaOf(2), deltaOf(3))); err != nil {
		t.Fatal(err)
	}
	in, reply := readMessages(owner), &peerpb.FollowReply{}
	if err := in.next(reply); err != nil || reply.Recorded != 3 {
		t.Errorf("%v, %v, want 3 recorded", reply, err)
	}
	next := framed(t, deltaOf(4), deltaOf(5))
	if _, err := owner.Write(next[:len(next)-1]); err != nil { // the answer to the first does not wait for the rest of the second
		t.Fatal(err)
	}
	if err := in.next(reply); err != nil || reply.Recorded != 4 {
		t.Errorf("%v, %v, want 4 recorded", reply, err)
	}
	owner.Close()
	<-done
}

// TestRefusalArrives: an owner that has sent much more than the member took reads why it was refused, and not that the connection
// was reset.
func TestRefusalArrives(t *testing.T) {
	c := newCluster(t, 1)
	conn, err := c.pool.DialWitness(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(framed(t, helloTo(7)), make([]byte, 16<<20)...)); err != nil { // more than a socket holds
		t.Fatal(err)
	}
	list := answers(conn)
	if len(list) != 1 || list[0].Refused != peerpb.Refusal_REFUSAL_INCARNATION || list[0].Why == "" {
		t.Errorf("answers %v", list)
	}
}

// TestFollowIsBounded: an owner that is stopped does not hold a member's goroutine, whatever it has not done.
func TestFollowIsBounded(t *testing.T) {
	for name, x := range map[string]struct {
		send []proto.Message
		want time.Duration
	}{
		"no hello":          {nil, ownerTimeout},
		"takes no answer":   {[]proto.Message{helloTo(1), tableFrom(1)}, writeTimeout},
		"takes no refusal":  {[]proto.Message{helloTo(7)}, writeTimeout},
		"refused and stays": {[]proto.Message{helloTo(7)}, ownerTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				owner, done := follow(NewMember(MemberConfig{ID: ID{2, 1}}))
				defer owner.Close()
				if _, err := owner.Write(framed(t, x.send...)); err != nil {
					t.Fatal(err)
				}
				if name == "refused and stays" {
					if err := readMessages(owner).next(&peerpb.FollowReply{}); err != nil {
						t.Fatal(err)
					}
				}
				<-done
				if took := time.Since(begun); took != x.want {
					t.Errorf("the member was held for %v, want %v", took, x.want)
				}
			})
		})
	}
}

// runLink runs a link whose member is the far end of a pipe.
func runLink(ctx context.Context) (l *link, far net.Conn, ended chan error) {
	near, far := net.Pipe()
	r := NewRegistrar(Config{Dial: func(context.Context, ident.Broker) (net.Conn, error) { return near, nil }})
	l = &link{r: r, member: ID{2, 1}, session: 1, wake: make(chan struct{}, 1)}
	ended = make(chan error, 1)
	go func() { ended <- l.run(ctx, 1) }()
	return l, far, ended
}

// TestLinkIsBounded: a link to a member that takes no bytes ends at once when the owner gives the member up, and by itself if
// nobody does.
func TestLinkIsBounded(t *testing.T) {
	for _, given := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun, want := time.Now(), writeTimeout+lastWord
			l, far, ended := runLink(ctx)
			defer far.Close()
			l.put(Message{Hello: &Hello{Key: testKey, Owner: ID{1, 1}, Session: 1, Member: ID{2, 1}}})
			synctest.Wait() // it writes
			if given {
				want = 0
				cancel()
			}
			err := <-ended
			if took := time.Since(begun); took != want || err == nil {
				t.Errorf("given up: %v: it ended after %v with %v, want %v", given, took, err, want)
			}
			if !given && !late(err) {
				t.Errorf("it ended with %v, want what the write said", err)
			}
		})
	}
}

// idleLog is a log of which nothing is asked.
type idleLog struct{}

func (idleLog) Table(context.Context) (commitlog.Table, error) { return commitlog.Table{}, nil }
func (idleLog) Fence(error)                                    {}

// TestRegisterNeverWaits: a member that takes no bytes does not hold whoever registers, and what it then reads is in order. On the
// clock of a bubble, a wait for I/O is one that ends with a timeout, or never.
func TestRegisterNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // it has no room: a socket whose buffers are full
		defer far.Close()
		ctx, cancel := context.WithCancel(t.Context())
		r := NewRegistrar(Config{Dial: func(context.Context, ident.Broker) (net.Conn, error) { return near, nil }, Owner: OwnerConfig{Size: 1}})
		var run sync.WaitGroup
		run.Go(func() { _ = r.Run(ctx) })
		defer run.Wait()
		defer cancel()
		in, out := readMessages(far), sender{conn: far}
		next := func() *peerpb.FollowRequest {
			m := &peerpb.FollowRequest{}
			if err := in.next(m); err != nil {
				t.Error(err)
			}
			return m
		}
		answer := func(n uint64) {
			if err := errors.Join(out.add(&peerpb.FollowReply{Recorded: n}), out.flush()); err != nil {
				t.Error(err)
			}
		}
		go func() {
			hello, table := next(), next()
			if hello.GetHello() == nil || !table.GetTable().GetDone() {
				t.Errorf("a session begins with %v, %v", hello, table)
			}
			answer(table.GetTable().GetNext() - 1)
		}()
		set, err := r.Offer(ctx, idleLog{}, testKey, ID{1, 1}, commitlog.Table{}, []Candidate{{ID: ID{2, 1}}})
		if err != nil || len(set) != 1 {
			t.Fatalf("offer: %v, %v", set, err)
		}
		r.Opened(Record{Open: true, Host: 1, Epoch: testKey.Epoch, Set: set})
		const commits = 200
		begun, committed := time.Now(), make(chan int, commits)
		for i := range commits {
			r.Register(ident.Position(1+i), nil, func(err error) {
				if err != nil {
					t.Errorf("commit %d: %v", i, err)
				}
				committed <- i
			})
			if i == commits/2 {
				synctest.Wait() // some are on their way, the rest waits behind them
			}
		}
		if took := time.Since(begun); took != 0 || len(committed) != 0 {
			t.Errorf("registering took %v, and %d are committed", took, len(committed))
		}
		for i := range uint64(commits) {
			if d := next().GetDelta(); d.GetNumber() != i+1 {
				t.Fatalf("delta %d comes as number %d", d.GetNumber(), i+1)
			}
		}
		answer(commits)
		for i := range commits {
			if got := <-committed; got != i {
				t.Fatalf("%d is committed before %d", got, i)
			}
		}
	})
}

// TestLinkEnds: only a whole answer says that a member has refused (ADR 13, 5).
func TestLinkEnds(t *testing.T) {
	sealed := framed(t, &peerpb.FollowReply{Refused: peerpb.Refusal_REFUSAL_SEALED, Why: "sealed"})
	for name, x := range map[string]struct {
		said []byte
		want error
	}{
		"sealed":        {sealed, ErrSealed},
		"sealed, cut":   {sealed[:len(sealed)-1], io.ErrUnexpectedEOF},
		"recorded, cut": {append(framed(t, &peerpb.FollowReply{Recorded: 1}), 0), io.ErrUnexpectedEOF},
		"too long":      {[]byte("\x00\x40\x00\x01"), ErrMalformed},
	} {
		_, far, ended := runLink(t.Context())
		if _, err := far.Write(x.said); err != nil {
			t.Fatal(err)
		}
		far.Close()
		if err := <-ended; !errors.Is(err, x.want) || x.want != ErrSealed && errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	_, far, ended := runLink(t.Context())
	far.Close()
	if err := <-ended; err == nil || errors.Is(err, ErrSealed) {
		t.Errorf("closed: %v", err)
	}
}
