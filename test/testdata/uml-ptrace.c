/*
 * A ptrace(2) under which User Mode Linux 6.1 (Debian 12's linux.uml) runs on
 * processors with AMX:
 *
 *	gcc -O2 -shared -fPIC -o uml-ptrace.so uml-ptrace.c
 *	LD_PRELOAD=$PWD/uml-ptrace.so linux.uml ...
 *
 * That kernel keeps the registers of its processes in a buffer with room for
 * everything up to AVX-512. With AMX there are 8 KiB more of them: it gets the
 * first part, and Linux takes nothing less than all of it back (EFAULT, and
 * UML panics). Here the rest is added from what the process has at that moment,
 * which is right for guests that use no AMX, and they can't: UML does not let
 * them ask for it.
 *
 * To deny UML this call altogether (it then uses PTRACE_GETFPREGS) is no way
 * out: each page fault then zeroes the upper halves of the AVX registers, and
 * the guest's programs compute nonsense or crash.
 */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEKTEXT = 1, PEEKUSER = 3, GETREGSET = 0x4204, SETREGSET = 0x4205 };

static char registers[1 << 16];

long ptrace(int request, ...)
{
	va_list args;
	va_start(args, request);
	int pid = va_arg(args, int);
	void *addr = va_arg(args, void *);
	void *data = va_arg(args, void *);
	va_end(args);

	if (request >= PEEKTEXT && request <= PEEKUSER) { /* as in glibc */
		long word;
		long ret = syscall(SYS_ptrace, request, pid, addr, &word);
		return ret < 0 ? ret : word;
	}
	if ((request != GETREGSET && request != SETREGSET) || addr != (void *)NT_X86_XSTATE)
		return syscall(SYS_ptrace, request, pid, addr, data);

	struct iovec all = { registers, sizeof registers }, *part = data;
	long ret = syscall(SYS_ptrace, GETREGSET, pid, addr, &all);
	if (ret < 0)
		return ret;
	size_t size = part->iov_len < all.iov_len ? part->iov_len : all.iov_len;
	if (request == SETREGSET) {
		memcpy(registers, part->iov_base, size);
		return syscall(SYS_ptrace, SETREGSET, pid, addr, &all);
	}
	memcpy(part->iov_base, registers, size);
	part->iov_len = size;
	return 0;
}
