/* Entry of the small guest: multiboot header, flat segments, a stack and two interrupt stubs. */
        .section .multiboot, "a"
        .align  4
        .long   0x1BADB002, 0, -0x1BADB002

        .section .text.start, "ax"
        .globl  _start
_start: cli
        mov     $stack_top, %esp
        lgdt    gdt_pointer
        ljmp    $8, $1f
1:      mov     $16, %ecx
        mov     %ecx, %ds
        mov     %ecx, %es
        mov     %ecx, %ss
        push    %ebx                    /* multiboot information */
        call    guest_main
2:      cli
        hlt
        jmp     2b

/* The timer only has to end a hlt; the clock is the time stamp counter. */
        .globl  timer_interrupt
timer_interrupt:
        push    %eax
        mov     $0x20, %al
        out     %al, $0x20
        pop     %eax
        iret

        .globl  fault_interrupt
fault_interrupt:
        call    guest_fault
        jmp     2b

        .section .rodata
        .align  8
gdt:    .quad   0
        .quad   0x00CF9A000000FFFF      /* code, 4 GiB */
        .quad   0x00CF92000000FFFF      /* data, 4 GiB */
gdt_pointer:
        .word   23
        .long   gdt

        .section .bss
        .align  64
        .skip   8192
stack_top:

        .section .note.GNU-stack, "", @progbits
