#include "services/migration/tests/scene.h"

#include <criterion/criterion.h>

Test(scene, plain)
{
    static struct scene s;
    struct scene_config c = scene_plain(1);
    cr_assert(scene_play_loud(&s, &c));
    cr_assert_eq(s.source_end, TW_HAND_OVER_COMMITTED);
    cr_assert_eq(s.destination_end, TW_HAND_OVER_COMMITTED);
}
