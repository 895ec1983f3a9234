from boost_core import boost


@boost("area", results=True)
def area(width: int, height: int) -> int:
    return width * height


if __name__ == "__main__":
    area.consume()
    jobs = area.push_many(area.call(n, height=10) for n in (1, 2, 3))
    print([job.get(timeout=10) for job in jobs])
