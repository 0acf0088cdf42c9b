package dev

import "syscall"

// ownGroup keeps the terminal's signals from a child, which the supervisor stops in order, and has the kernel kill the
// child when the thread that started it ends: with the supervisor, however that ends. Run locks its thread for this.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
