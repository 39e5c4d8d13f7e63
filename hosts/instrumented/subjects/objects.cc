// C++: constructors, virtual tables, containers over the region.
extern "C" {
#include "subject.h"
}

#include <algorithm>
#include <atomic>
#include <new>
#include <string>
#include <vector>

namespace
{

struct base {
    virtual ~base() = default;
    virtual int value() const
    {
        return 1;
    }
    int number = 7;
};

struct derived : base {
    int value() const override
    {
        return 2;
    }
    std::atomic<long> count{5};
};

void constructed() // a
{
    auto *one = new (region + 4096) derived;
    one->count += one->value();
    auto *two = new (region + 8192) std::string("short");
    *two += '!';
    std::fill(region + 12288, region + 12288 + 300, uint8_t{3});
    const std::vector<uint8_t> bytes(500, 4);
    std::copy(bytes.begin(), bytes.end(), region + 16384);
    std::sort(region + 16384, region + 16384 + 500, [](int a, int b) { return a > b; });
}

} // namespace

int main()
{
    static void (*const scenarios[])() = {constructed};
    return subject_main(scenarios, 1);
}
