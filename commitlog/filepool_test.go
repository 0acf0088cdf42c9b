package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

const poolTestSize = 4 << 20

func poolTestConfig() filePoolConfig {
	return filePoolConfig{FileSize: poolTestSize, FirstFill: 1 << 20,
		Direct: vfs.DirectIO{Available: true, MemoryAlign: 512, OffsetAlign: 512}}
}

// poolTestDisk is a disk with a durable directory /log.
func poolTestDisk(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	if err := errors.Join(mem.MkdirAll("/log"), mem.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return mem
}

func openPool(t *testing.T, fsys vfs.FS, cfg filePoolConfig) *filePool {
	t.Helper()
	p, err := openFilePool(fsys, "/log", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// prepareAll does all background work at once.
func prepareAll(p *filePool) error {
	for {
		if n, err := p.step(); n == 0 || err != nil {
			return err
		}
	}
}

func poolHeader(first ident.Position) []byte {
	return bytes.Repeat([]byte{byte(first>>20) + 1}, vfs.PageSize)
}

func list(t *testing.T, fsys vfs.FS) string {
	t.Helper()
	names, err := fsys.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestFilePoolLifeOfAFile(t *testing.T) {
	mem := poolTestDisk(t)
	p := openPool(t, mem, poolTestConfig())
	if err := prepareAll(p); err != nil {
		t.Fatal(err)
	}
	if got := list(t, mem); got != "pool-0.ready pool-1.ready" {
		t.Fatalf("prepared: %s", got)
	}
	f, name, err := p.take(t.Context(), 0, poolHeader(0))
	if err != nil || name != "/log/00000000000000000000.log" || f.Prepared() != poolTestSize {
		t.Fatalf("take = %s, %v", name, err)
	}
	cut := mem.Crash(1)
	if got := list(t, cut); got != "00000000000000000000.log pool-1.ready" {
		t.Errorf("after a power cut: %s", got)
	}
	if b := fileBytes(t, cut, name); len(b) != poolTestSize || !bytes.Equal(b[:vfs.PageSize], poolHeader(0)) {
		t.Errorf("after a power cut: %d bytes", len(b))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.recycle(name); err != nil {
		t.Fatal(err)
	}
	if got := list(t, mem.Crash(2)); got != "pool-1.ready pool-2.ready" {
		t.Errorf("after recycling and a power cut: %s", got)
	}
	next := openPool(t, mem.Crash(3), poolTestConfig())
	if next.available() != 2 {
		t.Errorf("the next start found %d ready files", next.available())
	}
	if _, _, err := next.take(t.Context(), poolTestSize, poolHeader(poolTestSize)); err != nil {
		t.Error(err)
	}
}

func TestFilePoolRemovesLeftovers(t *testing.T) {
	mem := poolTestDisk(t)
	for name, size := range map[string]int64{"pool-7.new": poolTestSize, "pool-8.ready": 100, "pool-9.ready": poolTestSize,
		"pool-x": 1, "pool-11.ready": poolTestSize, "pool-12.ready": poolTestSize, "00000000000000000000.log": poolTestSize} {
		f, err := mem.Open("/log/"+name, vfs.OpenOptions{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	p := openPool(t, mem, poolTestConfig())
	p.giver.all()
	if got := list(t, mem); got != "00000000000000000000.log pool-11.ready pool-12.ready" {
		t.Errorf("left: %s", got)
	}
	if p.newPath("") != "/log/pool-13" {
		t.Error("a name was used twice")
	}
}

func TestFilePoolTakesAtOnce(t *testing.T) {
	mem := poolTestDisk(t)
	faulty := vfs.NewFaulty(mem)
	p := openPool(t, faulty, poolTestConfig())
	f, name, err := p.take(t.Context(), 0, poolHeader(0))
	if err != nil || f.Prepared() != 1<<20 {
		t.Fatalf("prepared %d, %v", f.Prepared(), err)
	}
	// A write far ahead of the filler claims its place; the filler goes on after it.
	buf, err := vfs.AllocAligned(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer vfs.FreeAligned(buf)
	for i := range buf {
		buf[i] = 0xAB
	}
	if _, err := p.step(); err != nil || f.Prepared() != 2<<20 {
		t.Fatalf("prepared %d, %v", f.Prepared(), err)
	}
	if _, err := f.WriteAt(buf, 2<<20); err != nil {
		t.Fatal(err)
	}
	if f.Prepared() != 2<<20+8192 {
		t.Errorf("prepared %d after a write", f.Prepared())
	}
	if err := prepareAll(p); err != nil {
		t.Fatal(err)
	}
	b := fileBytes(t, mem.Crash(5), name)
	if len(b) != poolTestSize || !bytes.Equal(b[2<<20:2<<20+8192], buf) || f.Prepared() != poolTestSize {
		t.Error("the filler wrote over the log")
	}
}

func TestFilePoolWriterWaitsForTheChunkUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := poolTestDisk(t)
		faulty := vfs.NewFaulty(mem)
		p := openPool(t, faulty, poolTestConfig())
		f, name, err := p.take(t.Context(), 0, poolHeader(0))
		if err != nil {
			t.Fatal(err)
		}
		hang := faulty.Inject(vfs.Rule{Kinds: vfs.KindWrite, Effect: vfs.HangBefore})
		filled := make(chan error, 1)
		go func() {
			_, err := p.step()
			filled <- err
		}()
		<-hang.Hit()
		buf, err := vfs.AllocAligned(4096)
		if err != nil {
			t.Fatal(err)
		}
		defer vfs.FreeAligned(buf)
		buf[0] = 0xCD
		wrote := make(chan error, 1)
		go func() {
			_, err := f.WriteAt(buf, 1<<20+4096)
			wrote <- err
		}()
		synctest.Wait()
		select {
		case <-wrote:
			t.Error("the write did not wait for the filler")
		default:
		}
		hang.Release()
		if err := errors.Join(<-filled, <-wrote); err != nil {
			t.Fatal(err)
		}
		if b := fileBytes(t, mem, name); b[1<<20+4096] != 0xCD {
			t.Error("the filler wrote over the log")
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := f.fillSome(); n != 0 || err != nil {
			t.Errorf("a closed file is still filled: %d, %v", n, err)
		}
	})
}

func TestFilePoolLevels(t *testing.T) {
	mem := poolTestDisk(t)
	mem.SetCapacity(20 * poolTestSize)
	cfg := poolTestConfig()
	cfg.Refuse, cfg.Throttle, cfg.Avoid = 2*poolTestSize, 4*poolTestSize, 8*poolTestSize
	p := openPool(t, mem, cfg)
	seen := map[Level]int{}
	last := LevelOK
	for i := range ident.Position(100) {
		if err := prepareAll(p); err != nil {
			t.Fatal(err)
		}
		if err := p.measure(); err != nil {
			t.Fatal(err)
		}
		if p.level() < last {
			t.Errorf("level fell from %v to %v", last, p.level())
		}
		last = p.level()
		seen[last]++
		_, name, err := p.take(t.Context(), i*poolTestSize, poolHeader(0))
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || p.level() != LevelRefuse {
			t.Errorf("full disk: %v at level %v", err, p.level())
		}
		if _, err := mem.Stat(name); name != "" && err == nil {
			t.Error("a refused file is there")
		}
		break
	}
	if last != LevelRefuse || seen[LevelOK] == 0 || seen[LevelAvoid] == 0 || seen[LevelThrottle] == 0 {
		t.Errorf("levels seen: %v", seen)
	}
	if err := prepareAll(p); err != nil {
		t.Errorf("a full disk ended the pool: %v", err)
	}
	for i := range ident.Position(10) {
		if err := p.recycle("/log/" + logFileName(i*poolTestSize)); err != nil {
			t.Fatal(err)
		}
	}
	p.giver.all()
	if err := p.measure(); err != nil || p.level() != LevelOK {
		t.Errorf("level %v after recycling, %v", p.level(), err)
	}
}

// TestFilePoolPressure: nothing above the level Throttle, then in proportion to what is gone, 1 just where appends are refused.
func TestFilePoolPressure(t *testing.T) {
	mem := poolTestDisk(t)
	cfg := poolTestConfig()
	cfg.Refuse, cfg.Throttle, cfg.Avoid = 2*poolTestSize, 4*poolTestSize, 8*poolTestSize
	p := openPool(t, mem, cfg)
	space, err := mem.Space("/log")
	if err != nil {
		t.Fatal(err)
	}
	used := space.Total - space.Available
	last := -1.0
	for free := cfg.Avoid + vfs.PageSize; free >= 0; free -= vfs.PageSize {
		mem.SetCapacity(used + free)
		if err := p.measure(); err != nil {
			t.Fatal(err)
		}
		got := p.pressure()
		switch {
		case free >= cfg.Throttle && got != 0:
			t.Fatalf("%d bytes free: %g, want 0", free, got)
		case free < cfg.Refuse && got != 1:
			t.Fatalf("%d bytes free: %g, want 1", free, got)
		case free >= cfg.Refuse && free < cfg.Throttle && (got <= last || got >= 1):
			t.Fatalf("%d bytes free: %g after %g", free, got, last)
		}
		last = got
	}
	mem.SetCapacity(used + 3*poolTestSize)
	if err := p.measure(); err != nil {
		t.Fatal(err)
	}
	if got := p.pressure(); got < 0.49 || got > 0.51 {
		t.Errorf("half of the room is gone: %g", got)
	}
}

func TestFilePoolRunKeepsFilesReadyAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := poolTestConfig()
		cfg.FillRate = 1 << 20
		p, err := openFilePool(poolTestDisk(t), "/log", cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		time.Sleep(4*time.Second - time.Millisecond) // virtual time
		if n := p.available(); n != 0 {
			t.Errorf("%d files of 4 MiB ready before 4 s at 1 MiB/s", n)
		}
		time.Sleep(5 * time.Second)
		if n := p.available(); n != 2 {
			t.Errorf("%d files ready after 9 s, want 2", n)
		}
		if _, _, err := p.take(ctx, 0, poolHeader(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := p.available(); n != 2 {
			t.Errorf("%d files ready 5 s after one was taken, want 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFilePoolYields: while the log uses its disk nothing is zeroed, and when it rests all that is missing.
func TestFilePoolYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := poolTestConfig()
		cfg.YieldRate, cfg.FillRate = 10<<20, 8<<20
		p, err := openFilePool(poolTestDisk(t), "/log", cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		use := func(perSecond int64) {
			for range 100 {
				p.used.Add(perSecond / 20)
				time.Sleep(50 * time.Millisecond)
			}
		}
		go func() { done <- p.run(ctx) }()
		use(12 << 20)
		if n := p.available(); n != 0 {
			t.Errorf("the log moves 12 MiB/s: %d files ready", n)
		}
		use(8 << 20)
		if n := p.available(); n != 2 {
			t.Errorf("the log moves 8 MiB/s: %d files ready, want 2", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFilePoolLooksAtTheDiskWhileItPrepares: somebody else fills the disk while files are being zeroed, which takes long.
func TestFilePoolLooksAtTheDiskWhileItPrepares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := poolTestConfig()
		cfg.FillRate, cfg.Refuse = 200<<10, 2*poolTestSize // a chunk in 5 s, of the two files that it reserved
		mem := poolTestDisk(t)
		p, err := openFilePool(mem, "/log", cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		time.Sleep(time.Second)
		mem.SetCapacity(2 * poolTestSize)
		time.Sleep(6 * time.Second)
		if p.level() != LevelRefuse || p.available() > 0 {
			t.Errorf("level %v with %d files ready", p.level(), p.available())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestFilePoolFirstFile: a log that begins gets its file on a disk that has no room for another one.
func TestFilePoolFirstFile(t *testing.T) {
	mem := poolTestDisk(t)
	mem.SetCapacity(poolTestSize + firstReserve + 1<<20)
	cfg := poolTestConfig()
	cfg.Refuse = 8 * firstReserve
	p := openPool(t, mem, cfg)
	f, _, err := p.take(t.Context(), 0, poolHeader(0))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := p.take(t.Context(), poolTestSize, poolHeader(0)); !errors.Is(err, ErrFull) {
		t.Errorf("the second one: %v", err)
	}
	mem.SetCapacity(poolTestSize + firstReserve - 1<<20)
	if err := mem.Remove("/log/" + logFileName(0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openPool(t, mem, cfg).take(t.Context(), 0, poolHeader(0)); !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without its reserve: %v", err)
	}
}

// poolSweepSize keeps the sweep quick: the smallest file.
const poolSweepSize = 1 << 20

// poolScenario is the life of two files: prepare, take, write, retire, reuse.
func poolScenario(fsys vfs.FS) (acked map[string]byte, err error) {
	acked = map[string]byte{}
	cfg := poolTestConfig()
	cfg.FileSize, cfg.FirstFill = poolSweepSize, 1<<18
	var warned error
	cfg.Warn = func(_ string, err error) { warned = errors.Join(warned, err) }
	p, err := openFilePool(fsys, "/log", cfg)
	if err != nil {
		return acked, err
	}
	defer p.stop()
	buf, err := vfs.AllocAligned(4096)
	if err != nil {
		return acked, err
	}
	defer vfs.FreeAligned(buf)
	var names []string
	for i := range ident.Position(4) {
		f, name, err := p.take(context.Background(), i*poolSweepSize, poolHeader(i*poolSweepSize))
		if err != nil {
			return acked, err
		}
		acked[name] = 0
		buf[0] = byte(i) + 1
		if _, err := f.WriteAt(buf, 3<<18); err != nil {
			return acked, errors.Join(err, f.Close())
		}
		acked[name] = buf[0]
		if i != 2 {
			err = prepareAll(p)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return acked, err
		}
		names = append(names, name)
		if i == 1 {
			delete(acked, names[0]) // from here on it may be there or not
			if err := p.recycle(names[0]); err != nil {
				return acked, err
			}
		}
	}
	delete(acked, names[1])
	err = p.setAside(names[1])
	p.giver.all()
	return acked, errors.Join(err, warned)
}

func TestFilePoolFaultSweep(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, effect := range []vfs.Effect{vfs.FailBefore, vfs.FailAfter, vfs.Tear} {
		for n := 1; ; n += step {
			mem := poolTestDisk(t)
			faulty := vfs.NewFaulty(mem)
			fault := faulty.Inject(vfs.Rule{Nth: n, Effect: effect, Seed: uint64(n)})
			acked, err := poolScenario(faulty)
			what := fmt.Sprintf("%v of %v", effect, fault.Fired())
			if len(fault.Fired()) > 0 && err == nil {
				t.Errorf("%s: no error", what)
			}
			for seed := range uint64(2) {
				checkPoolDisk(t, fmt.Sprintf("%s, seed %d", what, seed), mem.Crash(seed), acked)
			}
			if len(fault.Fired()) == 0 {
				if err != nil {
					t.Errorf("without a fault: %v", err)
				}
				break
			}
		}
	}
}

func checkPoolDisk(t *testing.T, what string, cut *vfs.Mem, acked map[string]byte) {
	t.Helper()
	for name, want := range acked {
		b := fileBytes(t, cut, name)
		if len(b) != poolSweepSize || (want != 0 && b[3<<18] != want) {
			t.Errorf("%s: %s lost what was durable", what, name)
		}
	}
	names, err := cut.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if first, ok := parseLogFileName(name); ok {
			b := fileBytes(t, cut, "/log/"+name)
			if len(b) != poolSweepSize || !bytes.Equal(b[:vfs.PageSize], poolHeader(first)) {
				t.Errorf("%s: %s has its name but not its header", what, name)
			}
		}
	}
	if _, err := poolScenario(cut); err != nil {
		t.Errorf("%s: the next start: %v", what, err)
	}
}
