"""Finding wgmma that read a descriptor which some path never set."""

from flowjax_benchmarks.sass import Listing

HEAD = """
        /*0000*/                   ISETP.GE.AND P0, PT, R2, R3, PT ;
        /*0010*/                   ULDC.64 UR8, c[0x0][0x208] ;
        /*0020*/                   ULDC.64 UR10, c[0x0][0x210] ;
        /*0030*/              @!P0 BRA `(.L_x_2) ;
"""
FIRST_LOOP = """
        /*0040*/                   R2UR UR4, R20 ;
        /*0050*/                   R2UR UR5, R21 ;
.L_x_1:
        /*0060*/                   ULDC.64 UR6, c[0x0][0x208] ;
        /*0070*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], !UPT ;
        /*0080*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0090*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
"""
SECOND_LOOP = """
.L_x_3:
        /*00c0*/                   ULDC.64 UR6, c[0x0][0x208] ;
        /*00d0*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], !UPT ;
        /*00e0*/               @P1 BRA `(.L_x_3) ;
        /*00f0*/                   EXIT ;
"""
OWN_DESCRIPTOR = """
        /*00a0*/                   R2UR UR4, R20 ;
        /*00b0*/                   R2UR UR5, R21 ;
"""


def test_a_descriptor_that_only_another_loop_sets_is_found():
    listing = Listing.parse(HEAD + FIRST_LOOP + SECOND_LOOP)
    assert [listing.count("HGMMA", loop) for loop in listing.loops()] == [1, 1]
    assert listing.stray_descriptors() == [
        "UR4 at 00d0, set at 0040",
        "UR5 at 00d0, set at 0050",
    ]


def test_a_value_left_over_does_not_hide_it():
    left_over = "        /*0028*/                   ULDC.64 UR4, c[0x0][0x218] ;\n"
    head = HEAD.replace("        /*0030*/", left_over + "        /*0030*/")
    stray = Listing.parse(head + FIRST_LOOP + SECOND_LOOP).stray_descriptors()
    assert stray == ["UR4 at 00d0, set at 0028, 0040", "UR5 at 00d0, set at 0028, 0050"]


def test_loops_that_set_their_own_are_sound():
    listing = Listing.parse(HEAD + FIRST_LOOP + OWN_DESCRIPTOR + SECOND_LOOP)
    assert listing.stray_descriptors() == []
    assert listing.count("HGMMA") == 2


def test_with_values_in_registers_only_the_second_operand_has_a_descriptor():
    second = SECOND_LOOP.replace("R24, gdesc[UR4]", "R24, R8, gdesc[UR4]")
    assert Listing.parse(HEAD + FIRST_LOOP + second).stray_descriptors() == []
