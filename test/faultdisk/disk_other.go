//go:build !linux

package faultdisk

import "fmt"

// Disk does not exist here.
type Disk struct{ Dir string }

// New returns ErrUnsupported.
func New(string, int64) (*Disk, error) {
	return nil, fmt.Errorf("%w: it takes Linux's loop devices", ErrUnsupported)
}

// Hang is never reached.
func (d *Disk) Hang() error { return ErrUnsupported }

// Resume is never reached.
func (d *Disk) Resume() error { return ErrUnsupported }

// Fail is never reached.
func (d *Disk) Fail() error { return ErrUnsupported }

// Heal is never reached.
func (d *Disk) Heal() error { return ErrUnsupported }

// Fill is never reached.
func Fill(string, int64) (func() error, error) { return nil, ErrUnsupported }

// Close is never reached.
func (d *Disk) Close() error { return ErrUnsupported }
