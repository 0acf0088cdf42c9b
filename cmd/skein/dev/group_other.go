//go:build !linux

package dev

import "syscall"

// ownGroup keeps the terminal's signals from a child, which the supervisor stops in order. Where the kernel cannot tie
// a child to its parent's life, a supervisor that is killed leaves its children behind.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
