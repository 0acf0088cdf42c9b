package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/vfs"
)

// smallSpan is the least that a bare server's file may have.
const smallSpan = bareBlocks * bareBlockSize

// startBare serves on loopback. end ends it and returns what Serve did.
func startBare(t *testing.T, cfg BareConfig) (b *Bare, addr string, end func() error) {
	t.Helper()
	b, err := OpenBare(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln) }()
	end = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() {
		if err := errors.Join(end(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	return b, ln.Addr().String(), end
}

// batchesIn are the batches of a bare server's file that was not written over: they lie behind each other, and what is
// left of a page behind the last one of a write is zero.
func batchesIn(t *testing.T, b *Bare) [][]byte {
	t.Helper()
	text, err := vfs.AllocAligned(int(b.span))
	if err != nil {
		t.Fatal(err)
	}
	defer vfs.FreeAligned(text)
	if _, err := b.file.ReadAt(text, 0); err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for at := 0; at < len(text); {
		size := int(binary.BigEndian.Uint32(text[at+8:])) + 12
		if size == 12 {
			page := (at/vfs.PageSize + 1) * vfs.PageSize
			if len(bytes.Trim(text[at:page], "\x00")) > 0 {
				t.Fatalf("bytes of no batch between %d and %d", at, page)
			}
			at = page
			continue
		}
		if size > len(text)-at {
			t.Fatalf("a batch of %d bytes at %d", size, at)
		}
		list = append(list, bytes.Clone(text[at:at+size]))
		at += size
	}
	return list
}

// TestBareKeepsWhatItAcknowledges has several connections, each with several requests on their way: Produce fails if an
// answer is out of order.
func TestBareKeepsWhatItAcknowledges(t *testing.T) {
	dir := t.TempDir()
	b, addr, _ := startBare(t, BareConfig{Dir: dir, Span: smallSpan})
	load := ProduceLoad{Topics: Topics{Prefix: "t", Count: 3, Partitions: 401}, RecordBytes: 100, Records: 4, Parts: 2, Conns: 5, InFlight: 7, Acks: -1, Once: true}
	p, err := Produce(t.Context(), addr, load)
	if err != nil {
		t.Fatal(err)
	}
	list, want, total := batchesIn(t, b), encodeBatch(load.Records, load.RecordBytes, time.Now()), int64(0)
	for i, got := range list {
		const after = 43 // the timestamps and the checksum, which are of when the load was made
		if total += int64(len(got)); !bytes.Equal(got, list[0]) || !bytes.Equal(got[after:], want[after:]) {
			t.Fatalf("batch %d differs", i)
		}
	}
	if total != p.AllBytes || total != int64(load.Topics.total()*len(want)) {
		t.Errorf("%d bytes of batches in the file, %d acknowledged", total, p.AllBytes)
	}
	if names, err := vfs.OS().List(dir); err != nil || len(names) > 0 {
		t.Errorf("its directory shows %q, %v", names, err)
	}
}

// TestBareRefusesDamage: a batch whose checksum is wrong is refused and not written; those beside it are.
func TestBareRefusesDamage(t *testing.T) {
	b, addr, _ := startBare(t, BareConfig{Dir: t.TempDir(), Span: smallSpan})
	good := encodeBatch(2, 50, time.Now())
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	c, err := dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, records := range [][][]byte{{good, bad, good}, {bad[:batchCRCFrom-1]}, {nil}, {good}} {
		if _, err := c.Write(bareFrame(7, records...)); err != nil {
			t.Fatal(err)
		}
		correlation, body, err := c.receive()
		if err != nil {
			t.Fatal(err)
		}
		var codes, want []int16
		rs := kmsg.NewPtrProduceResponse()
		rs.Version = produceVersion
		if err := rs.ReadFrom(body[1:]); err != nil || correlation != 7 {
			t.Fatalf("answer %d: %v", correlation, err)
		}
		for i, r := range records {
			codes, want = append(codes, rs.Topics[0].Partitions[i].ErrorCode), append(want, 0)
			if !bytes.Equal(r, good) {
				want[i] = 2
			}
		}
		if !slices.Equal(codes, want) {
			t.Errorf("codes %v, want %v", codes, want)
		}
	}
	if list := batchesIn(t, b); len(list) != 3 || !bytes.Equal(bytes.Join(list, nil), bytes.Repeat(good, 3)) {
		t.Errorf("%d batches in the file, want the 3 good ones", len(list))
	}
}

// bareFrame is a Produce request made by another library: one partition for each of the records.
func bareFrame(correlation int32, records ...[]byte) []byte {
	rq := kmsg.NewPtrProduceRequest()
	rq.Version, rq.Acks = produceVersion, -1
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = "t"
	for i, r := range records {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = int32(i), r
		rt.Partitions = append(rt.Partitions, rp)
	}
	rq.Topics = append(rq.Topics, rt)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, rq, correlation)
}

// TestBareWaitsForTheDisk: nothing is acknowledged before it is durable, nor before what came before it: the first of two
// writes hangs, and the second, which is done, has to wait for it.
func TestBareWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewFaulty(vfs.NewMem())
		b, err := OpenBare(t.Context(), BareConfig{Dir: "/", FS: disk, Span: smallSpan})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ln := pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- b.Serve(ctx, ln) }()
		defer func() { cancel(); <-served }()
		client, server := net.Pipe()
		ln.conns <- server
		answers := make(chan int32, 9)
		go func() {
			c := &conn{Conn: client, r: bufio.NewReader(client)}
			for {
				correlation, _, err := c.receive()
				if err != nil {
					return
				}
				answers <- correlation
			}
		}()
		hang := disk.Inject(vfs.Rule{Kinds: vfs.KindWrite, Effect: vfs.HangBefore})
		before := disk.Count(vfs.KindWrite)
		for i := range int32(2) {
			if _, err := client.Write(bareFrame(i, encodeBatch(1, 10, time.Now()))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := disk.Count(vfs.KindWrite) - before; n != 2 || len(answers) > 0 {
			t.Errorf("%d writes begun, want 2; %d answers while the first is not done, want none", n, len(answers))
		}
		hang.Release()
		synctest.Wait()
		if len(answers) != 2 || <-answers != 0 || <-answers != 1 {
			t.Error("no two answers in order once the first write is done")
		}
	})
}

// pipes is a listener of connections inside a process.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// TestBareEnds: with the context, once the write under way is done; the load is told.
func TestBareEnds(t *testing.T) {
	dir, disk := t.TempDir(), vfs.NewFaulty(vfs.OS())
	_, addr, end := startBare(t, BareConfig{Dir: dir, FS: disk, Span: smallSpan})
	hang := disk.Inject(vfs.Rule{Kinds: vfs.KindWrite, Nth: 5, Effect: vfs.HangBefore})
	loaded := make(chan error, 1)
	go func() {
		_, err := Produce(t.Context(), addr, ProduceLoad{Topics: Topics{Prefix: "t", Count: 1, Partitions: 1}, RecordBytes: 1000, Records: 10, Parts: 1, Conns: 3, InFlight: 3, Acks: -1, Time: time.Minute})
		loaded <- err
	}()
	<-hang.Hit()
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	if err := <-loaded; err == nil {
		t.Error("the load ended well")
	}
	select {
	case <-ended:
		t.Error("Serve returned while a write was under way")
	default:
	}
	hang.Release()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if names, err := vfs.OS().List(dir); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
}

// TestBareFailedWrite: it ends the server, and what was to be written is not acknowledged.
func TestBareFailedWrite(t *testing.T) {
	disk := vfs.NewFaulty(vfs.NewMem())
	b, err := OpenBare(t.Context(), BareConfig{Dir: "/", FS: disk, Span: smallSpan})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	disk.Inject(vfs.Rule{Kinds: vfs.KindWrite, Nth: 3})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(t.Context(), ln) }()
	p, err := Produce(t.Context(), ln.Addr().String(), ProduceLoad{Topics: Topics{Prefix: "t", Count: 1, Partitions: 9}, RecordBytes: 10, Records: 1, Parts: 1, Conns: 1, InFlight: 1, Acks: -1, Once: true})
	if err == nil {
		t.Errorf("the load ended well: %+v", p)
	}
	if err := <-served; !errors.Is(err, syscall.EIO) {
		t.Errorf("Serve: %v, want the write's error", err)
	}
}

// TestBareOpen: what it cannot open it names, and leaves as it was.
func TestBareOpen(t *testing.T) {
	dir := t.TempDir()
	theirs := dir + "/bare.data"
	if err := os.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBare(t.Context(), BareConfig{Dir: dir, Span: smallSpan}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	if text, err := os.ReadFile(theirs); err != nil || string(text) != "theirs" {
		t.Errorf("that file now: %q, %v", text, err)
	}
	if _, err := OpenBare(t.Context(), BareConfig{Dir: t.TempDir(), Span: smallSpan - 1}); err == nil {
		t.Error("a file smaller than its blocks")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	empty := t.TempDir()
	if _, err := OpenBare(ended, BareConfig{Dir: empty}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if names, err := vfs.OS().List(empty); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
	mem := vfs.NewMem() // a file system like tmpfs
	mem.SetDirect(vfs.DirectIO{MemoryAlign: 4096, OffsetAlign: 4096})
	b, err := OpenBare(t.Context(), BareConfig{Dir: "/", FS: mem, Span: smallSpan})
	if err != nil || b.Direct() {
		t.Fatalf("without direct I/O: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestBareClosesStrangers: who speaks of something else, or is one too many, is told so by the end of the connection.
func TestBareClosesStrangers(t *testing.T) {
	_, addr, _ := startBare(t, BareConfig{Dir: t.TempDir(), Span: smallSpan})
	ended := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection goes on")
		}
		c.Close()
	}
	frame := bareFrame(1, encodeBatch(1, 10, time.Now()))
	older, short, long := bytes.Clone(frame), bytes.Clone(frame), bytes.Clone(frame)
	older[7]--     // version
	short[3]--     // its last byte is the next request's
	long[0] = 0x7f // a request of 2 GiB
	for _, what := range [][]byte{older, short, long, []byte("GET / HTTP/1.1\r\n\r\n")} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(what); err != nil {
			t.Fatal(err)
		}
		ended(c)
	}
	var last net.Conn
	for range bareConns + 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		last = c
	}
	ended(last)
}

// FuzzAnswerProduce: whatever a request holds, the answer to it is bounded by it, and one that another library can read
// if it was whole.
func FuzzAnswerProduce(f *testing.F) {
	f.Add(bareFrame(1, encodeBatch(1, 10, time.UnixMilli(5)), nil)[4:])
	f.Fuzz(func(t *testing.T, rq []byte) {
		if len(rq) < 8 {
			return
		}
		r := bareRequest{}
		answer, whole := answerProduce(nil, rq, r.check)
		if len(answer) > 64+8*len(rq) {
			t.Errorf("an answer of %d bytes to a request of %d", len(answer), len(rq))
		}
		rs := kmsg.NewPtrProduceResponse()
		rs.Version = produceVersion
		if _, err := checkProduceResponse(answer[min(8, len(answer)):]); whole && errors.Is(err, errShort) {
			t.Error("the answer is not whole")
		}
		if whole && len(answer) < 1<<16 {
			if err := rs.ReadFrom(answer[9:]); err != nil {
				t.Errorf("read the answer: %v", err)
			}
		}
	})
}

// TestBarePlaces: writes follow each other, each on pages of its own, and begin anew before the file's end.
func TestBarePlaces(t *testing.T) {
	b := &Bare{align: 4096, span: 40 << 10}
	for _, c := range []struct {
		next int64
		n    int
		want int64
	}{{0, 1, 0}, {4096, 36 << 10, 4096}, {4096, 36<<10 + 1, 0}, {40 << 10, 1, 0}, {40 << 10, 0, 40 << 10}} {
		if got := b.place(c.next, c.n); got != c.want {
			t.Errorf("%d bytes at %d go to %d, want %d", c.n, c.next, got, c.want)
		}
	}
	if b.padded(0) != 0 || b.padded(1) != 4096 || b.padded(4096) != 4096 || b.padded(4097) != 8192 {
		t.Error("what is written is no whole pages")
	}
}
