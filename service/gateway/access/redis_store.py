"""What has been spent, in a Redis that the gateways of several machines share.

Redis' own clock and one script: what is spent is spent together or not at all, whoever asks at the
same time. A Redis that does not answer holds up no request for longer than `timeout_s`, and none at
all once it is known to be away: it is asked again beside the requests until it takes what is spent.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.gateway.access.limits import REQUESTS, Outcome, Quota, Rate, Spending, Store
from service.gateway.errors import Busy
from service.gateway.standstill import LATE_S

AGAIN_S = 0.5
AWAY_AFTER = 3  # answers in a row that came too late: one does where a machine is busy, and all
# that are waited for at that moment do, which count as one
CONNECTIONS = 64
# What one that was away is to take: a primary that has become a replica answers, and takes nothing.
NOTHING = Spending("nothing", Rate(REQUESTS, per_s=1.0, burst=1.0), 0.0)

# For each key: what is spent, and a rate's `per_s` and `burst`, or a day's number and 0. As
# limits.py has it, in Lua.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local numbers, refused, wait = {}, 0, 0
for i, key in ipairs(KEYS) do
  local cost, most, burst = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local number, this = tonumber(redis.call('GET', key) or 0), 0
  if burst > 0 then
    this = math.max(number - now, 0) + (math.min(cost, burst) - burst) / most
  elseif number + cost > most then
    this = 86400 - now % 86400
  end
  if refused == 0 and this > 1e-6 then refused, wait = i, this end
  numbers[i] = number
end
for i, key in ipairs(KEYS) do
  local cost, most, burst = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  if refused == 0 then
    local left = 86400 - now % 86400
    if burst > 0 then
      numbers[i] = math.max(numbers[i], now) + cost / most
      left = numbers[i] - now
    else
      numbers[i] = numbers[i] + cost
    end
    local text = string.format('%.6f', numbers[i])
    redis.call('SET', key, text, 'PX', math.max(math.ceil(left * 1000), 1))
  end
  numbers[i] = string.format('%.6f', numbers[i])
end
return {refused, string.format('%.6f', wait), string.format('%.6f', now), unpack(numbers)}
"""

log = logging.getLogger(__name__)


class RedisStore:
    """For one event loop. `fallback` keeps what is spent while Redis is away; without one, whoever
    has limits is refused until it is back. `problem` says that it is away. Raises ValueError for an
    address that is none."""

    share_ahead = 0.0

    def __init__(self, address: str, fallback: Store | None, timeout_s: float) -> None:
        pool = BlockingConnectionPool.from_url(
            address,
            max_connections=CONNECTIONS,
            timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._timeout_s = timeout_s
        self._script = self._redis.register_script(SCRIPT)
        self._fallback = fallback
        self._first: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._late, self._late_at = 0, -math.inf
        self.problem = ""

    def look(self) -> None:
        """Ask it once before anybody waits for it: one that is away is told at the start."""
        if self._first is None:
            self._first = asyncio.create_task(self._ask_first())

    async def spend(self, spendings: list[Spending]) -> Outcome:
        """See Store. Raises Busy."""
        if not self.problem:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await self._spend(spendings)
                self._late = 0
                return _outcome(spendings, reply)
            except TimeoutError as error:
                now = time.monotonic()
                # Else the loop itself stood still, and the answer may be there.
                in_time = now - began < self._timeout_s + LATE_S
                if in_time and began >= self._late_at:
                    self._late, self._late_at = self._late + 1, now
                if self._late >= AWAY_AFTER:
                    self._away(error)
            except (RedisError, OSError) as error:
                self._away(error)
        if self._fallback is None:
            raise Busy("What you have used of your limits cannot be counted; try again")
        return await self._fallback.spend(spendings)

    async def close(self) -> None:
        for task in (self._first, self._returning):
            if task is not None:
                task.cancel()
        await self._redis.aclose()

    def _spend(self, spendings: list[Spending]) -> Awaitable[Any]:
        names = [f"sluice:{{{each.name}}}:{each.limit.kind}" for each in spendings]
        numbers: list[float] = []
        for each in spendings:
            limit = each.limit
            size = (limit.most, 0) if isinstance(limit, Quota) else (limit.per_s, limit.burst)
            numbers += [each.cost, *size]
        return self._script(names, numbers)

    async def _ask_first(self) -> None:
        try:
            await self._try()
        except (RedisError, OSError, TimeoutError) as error:
            self._away(error)

    async def _try(self) -> None:
        async with asyncio.timeout(AGAIN_S):
            await self._spend([NOTHING])

    def _away(self, error: Exception) -> None:
        if self.problem:
            return
        self.problem = f"Redis is away ({type(error).__name__})"
        then = "nobody with limits is answered" if self._fallback is None else "each gateway counts"
        log.error("%s; until it is back %s", self.problem, then)
        self._returning = asyncio.create_task(self._until_it_is_back())

    async def _until_it_is_back(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                # Its name may lead to another one by now, which has taken its place.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._try()
            except (RedisError, OSError, TimeoutError):
                continue
            self._late, self.problem = 0, ""
            log.info("Redis is back after %.0f s", time.monotonic() - began)
            return


def _outcome(spendings: list[Spending], reply: list[Any]) -> Outcome:
    refused, wait_s, now, *used = reply
    limit = spendings[int(refused) - 1].limit if int(refused) else None
    return Outcome(limit, float(wait_s), [float(each) for each in used], float(now))
