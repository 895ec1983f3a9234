from boost_core import boost


@boost("resize", concurrency=1, retries=3, timeout=30)
def resize(path: str, width: int) -> None:
    print(f"{path} is {width} wide now")


if __name__ == "__main__":
    resize("a.png", 200)  # a plain call: here and now

    resize.push_many(resize.call(f"{n}.png", width=200) for n in range(3))
    resize.consume()  # work on them in this process, in the background
    resize.wait_idle()
    print("Waiting for more, until Ctrl-C")
