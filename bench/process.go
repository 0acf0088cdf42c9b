package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used so far, from /proc.
type Usage struct {
	CPU        time.Duration // user and system, all threads
	RSS        int64         // resident bytes now
	DiskWrites int64         // bytes sent to the block layer
}

// clockTick is USER_HZ of every Linux that Go runs on.
const clockTick = 100

// usageOf reads /proc/PID; it works on Linux only, and says so elsewhere.
func usageOf(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of process %d: %w", pid, err)
	}
	var u Usage
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, errors.New("read usage: unknown format of /proc/PID/stat")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return u, err
	}
	u.CPU = time.Duration(user+system) * time.Second / clockTick
	if u.RSS, err = procNumber(dir+"status", "VmRSS:"); err != nil {
		return u, err
	}
	u.RSS *= 1024
	u.DiskWrites, err = procNumber(dir+"io", "write_bytes:")
	return u, err
}

// procNumber reads the number behind a key of a /proc file of "key: value" lines.
func procNumber(path, key string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("read %s: no %s", path, key)
}
