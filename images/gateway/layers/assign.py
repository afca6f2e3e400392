"""Chooses the variant that a user gets, and opens the exposure of the request."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.chat_request import SESSION_COOKIE, for_upstream
from images.gateway.engine_support import check_engine
from images.gateway.errors import ApiError
from images.gateway.exposures import Exposure, now
from images.gateway.layers.base import Layer


class Assign(Layer):
    """Fills `payload`, `route` and `exposure` of a call, and counts it as in flight until it is over."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        endpoint, user = call.endpoint, call.end_user
        kind = call.operation.kind
        call.payload = for_upstream(call.body, endpoint, kind)
        if not endpoint.serves:
            raise ApiError(503, f"endpoint {endpoint.name!r} serves no model yet", code="not_ready")
        route, experiment = endpoint.exposed(endpoint.assigned(user.user))
        check_engine(kind, call.body, route.engine, is_probe=call.is_probe)
        gateway, name = self.gateway, endpoint.name
        if user.new_session:
            call.headers["Set-Cookie"] = f"{SESSION_COOKIE}={user.new_session}; Path=/; HttpOnly; SameSite=Lax"
        in_flight = gateway.in_flight
        in_flight[name] = in_flight.get(name, 0) + 1

        def leave() -> None:
            in_flight[name] -= 1

        call.on_close(leave)
        call.route = route
        call.exposure = Exposure(
            request_id=call.request_id,
            at=now(),
            endpoint=name,
            salt=endpoint.salt,
            experiment=experiment,
            phase=endpoint.phase,
            variant=route.index,
            backend=route.backend,
            model_ref=route.model_ref,
            user=user.user,
            session=user.session,
            query=call.query,
            streamed=call.is_streamed,
        )
        if experiment is not None:
            gateway.arms.watch(call, endpoint, route)
        return proceed(call)
