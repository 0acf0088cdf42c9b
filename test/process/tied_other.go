//go:build !linux

package process

import "syscall"

// Tied has the kernel do nothing: only Linux can.
func Tied() *syscall.SysProcAttr { return nil }
