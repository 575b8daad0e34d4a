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

	.section .note.GNU-stack, "", @progbits
