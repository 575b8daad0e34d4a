/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * First instruction of every vCPU: EL1 with its own stack pointer, MMU on, interrupts masked,
 * x0 = its block, sp = end of its stack (set by the VMM). And the exception vectors.
 */
	.section .text.entry, "ax"
	.globl guest_entry
guest_entry:
	mov	x29, xzr
	bl	guest_main
	brk	#0

/* What C may change; x19 to x22 are the guest's, the other callee-saved ones C keeps. */
	.macro	save
	stp	x0, x1, [sp, #-160]!
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x30, [sp, #144]
	.endm

	.macro	restore
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x30, [sp, #144]
	ldp	x0, x1, [sp], #160
	.endm

	.macro	unexpected
	.balign	128
	b	guest_fault
	.endm

	.section .vectors, "ax"
	.balign	2048
	.globl guest_vectors
guest_vectors:
	/* from EL1 with SP_EL0, which the guest never uses */
	unexpected
	unexpected
	unexpected
	unexpected
	/* from EL1 */
	unexpected
	.balign	128
	save
	bl	guest_interrupt
	restore
	eret
	unexpected
	unexpected
	/* from EL0, where the guest never is */
	unexpected
	unexpected
	unexpected
	unexpected
	unexpected
	unexpected
	unexpected
	unexpected

	.section .note.GNU-stack, "", @progbits
