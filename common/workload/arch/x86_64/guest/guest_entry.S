/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * First instruction of every vCPU: long mode, paging on, rdi = its block, rsp
 * = end of its stack (set by the VMM).
 */
	.section .text.entry, "ax"
	.globl guest_entry
guest_entry:
	xor	%ebp, %ebp
	call	guest_main
	ud2

/* In a page of its own: QEMU's TCG goes through that of a breakpoint step by step. */
	.section .breakpoint, "ax"
	.globl guest_breakpoint
guest_breakpoint:
	ret

	.section .note.GNU-stack, "", @progbits
