import time
from tests.system.test_crashes import POINTS, begun
from tests.system import scene as S
def test_prof(scene):
    import sys
    T=[time.time()]
    def lap(x): 
        T.append(time.time()); print(f"{x}: {T[-1]-T[-2]:.2f}", file=sys.stderr)
    service, publication = begun(scene); lap("begun")
    cut = POINTS["append applied, reply lost"].arm(scene, service.kill)
    publication.steadily(.6)
    service.start(); lap("start")
    service.wait_for("claimed") ; lap("claimed")
    scene.wait_for(cut); lap("cut")
    service.start(); service.wait_for("claimed"); lap("reclaimed")
    publication.pause(); publication.steadily(portion=40); publication.done(); lap("published")
    scene.settle(); lap("settled")
    scene.verify(); lap("verified")
    scene.verify(); lap("again")
    ex=scene.proxy.exchanges
    for e in ex: print(f"{e.at_s:.3f} {((e.ended_s or 0)-e.at_s)*1000:.0f}ms {e.method} {e.path.replace('/api/v1','')[:110]} {e.status}", file=sys.stderr)
    print(service.text(), file=sys.stderr)
