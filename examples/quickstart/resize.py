from boost_core import boost


@boost("resize", retries=3, timeout=30, results=True)
def resize(path: str, width: int) -> str:
    return f"{path} is {width} wide now"


if __name__ == "__main__":
    print(resize("a.png", 200))  # a plain call: here and now

    jobs = resize.push_many(resize.call(f"{n}.png", width=200) for n in range(100))
    resize.consume()  # work on them in this process, in the background
    print(jobs[99].get(timeout=10))
