package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"time"

	"github.com/skeinmq/skein/internal/vfs"
)

func (c Config) withDefaults() Config {
	c.FileSize = orDefault(c.FileSize, 512<<20)
	c.MaxBlock = orDefault(c.MaxBlock, 1<<20)
	c.WritesInFlight = orDefault(c.WritesInFlight, 2)
	c.CacheBytes = orDefault(c.CacheBytes, 256<<20)
	c.ReadsInFlight = orDefault(c.ReadsInFlight, 64)
	c.StuckWrite = orDefault(c.StuckWrite, 5*time.Second)
	c.ReadyFiles = orDefault(c.ReadyFiles, 2)
	c.ProducerExpiry = orDefault(c.ProducerExpiry, 24*time.Hour)
	c.CheckpointEach = orDefault(c.CheckpointEach, 30*time.Second)
	c.SortEach = orDefault(c.SortEach, 5*time.Second)
	c.SortRate = orDefault(c.SortRate, 32<<20)
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		began := time.Now()
		c.Now = func() time.Time { return began.Add(time.Since(began)) } // a clock that is set does not make producers old
	}
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Dir != "", "Dir: empty")
	check(len(c.ClusterID) <= maxClusterBytes, "ClusterID: %d bytes, at most %d", len(c.ClusterID), maxClusterBytes)
	check(c.FileSize >= poolFillChunk && c.FileSize <= maxFileSize && c.FileSize%fileHeaderSize == 0,
		"FileSize: %d, want a multiple of %d from 1 MiB to %d", c.FileSize, fileHeaderSize, int64(maxFileSize))
	check(c.MaxBlock >= 4096 && int64(c.MaxBlock) <= max(c.FileSize/4, 4096), "MaxBlock: %d, want 4 KiB to a quarter of FileSize", c.MaxBlock)
	check(c.WritesInFlight >= 1 && c.WritesInFlight <= 32, "WritesInFlight: %d, want 1 to 32", c.WritesInFlight)
	check(c.CacheBytes >= 1<<20 && c.CacheBytes <= 1<<40, "CacheBytes: %d, want 1 MiB to 1 TiB", c.CacheBytes)
	check(c.ReadsInFlight >= 1 && c.ReadsInFlight <= 4096, "ReadsInFlight: %d, want 1 to 4096", c.ReadsInFlight)
	check(c.StuckWrite > 0 && c.ProducerExpiry > 0 && c.CheckpointEach > 0 && c.SortEach > 0, "StuckWrite, ProducerExpiry, CheckpointEach, SortEach: must be positive")
	check(c.SortRate > 0, "SortRate: %d, must be positive", c.SortRate)
	check(c.ReadyFiles >= 1 && c.ReadyFiles <= 16, "ReadyFiles: %d, want 1 to 16", c.ReadyFiles)
	return errors.Join(errs...)
}

// maxFrame is the largest payload of one frame.
func (c *Config) maxFrame() int { return int(c.FileSize / 8) }

// open is Open.
func open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	cfg = cfg.withDefaults()
	l := &Log{
		cfg: cfg, fs: cfg.FS, log: cfg.Logger,
		logDir: filepath.Join(cfg.Dir, "log"), metaDir: filepath.Join(cfg.Dir, metaName),
		inbox: newInbox(), poisoned: make(chan struct{}), stopped: make(chan struct{}),
		low:       lowCeilings{wake: newWaker()},
		reads:     make(chan struct{}, cfg.ReadsInFlight),
		order:     make(chan *block, maxPiped+2),
		writes:    make(chan *block, maxPiped+2),
		witnessed: make(chan *block, maxPiped+2),
		snapping:  make(chan struct{}, 1),
	}
	l.table = newTable(l)
	l.damage = damage{l: l, name: filepath.Join(l.metaDir, damageName)}
	if err := l.openDirs(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Dir, err)
	}
	l.mem = newMemory(max(4<<20, 4*cfg.MaxBlock), cfg.CacheBytes)
	l.readMem = newMemory(readMax+2*vfs.PageSize, 0)
	l.readMem.spares = min(cfg.ReadsInFlight, 32)
	l.packMem = newMemory(packSize, 0)
	l.packMem.spares = 128
	l.metrics = newMetrics(cfg.Registerer, l)
	if err := l.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open log %s: %w", cfg.Dir, err), l.close())
	}
	return l, nil
}

// openDirs makes the directories when they are not there and reads or writes the
// identity.
func (l *Log) openDirs() error {
	for _, dir := range []string{l.logDir, l.metaDir} {
		if err := l.fs.MkdirAll(dir); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := l.openIdentity(); err != nil {
		return err
	}
	var err error
	if l.direct, err = l.fs.Direct(l.logDir); err != nil {
		return fmt.Errorf("probe direct I/O: %w", err)
	}
	l.align = l.direct.OffsetAlign
	return nil
}
